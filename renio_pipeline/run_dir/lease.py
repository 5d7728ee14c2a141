"""One writer: the lease of a run's directory, which a driver takes before it reads or cuts anything there.

    with lease.held(folder, note=print) as lease:      # ConfigError: a live driver has it
        ...                                            # every writer calls lease.fence.check() before it writes

A holder that has died is replaced at once if this process can know that: on the same machine, by process id and start time. Any
other is watched. Its heartbeat is a number that it raises; if the number changes while this process looks, the holder is alive.
Only this process's own sleeps are counted, so clocks of two machines are never compared. A holder that is silent for the whole
time may be on a machine that is gone, or cut off: a person decides, with ``--takeover``. One that was only stopped finds its
lease removed when it wakes (``fence.py``). A machine that is busy can therefore delay a second driver, but never let it in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from renio_pipeline.config import ConfigError
from renio_pipeline.run_dir import lease_files
from renio_pipeline.run_dir.fence import GONE, Fence
from renio_pipeline.run_dir.holders import Holder, Place, is_alive, now, this_place, this_process

SILENCE_SECONDS = 60.0  # the default of faults.lease_seconds
BEATS = 6  # heartbeats in that time
LOOKS = 30  # at a silent holder in that time
MOST_TRIES = 1000  # at a lease that is removed by others each time that it is looked at

Note = Callable[[str], None]


class Lease:
    """A lease that this process holds, with a thread for its heartbeat."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self.fence = Fence(str(path), holder.token)
        self._path, self._holder = path, holder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """End the heartbeat, and remove the lease unless it is another's by now."""
        self._ended.set()
        self._thread.join()
        with suppress(Exception):  # whatever it is: the lease of a process that ends is taken over anyway
            self.fence.check()
            lease_files.remove(self._path.parent, self._holder.token)

    def _beat(self) -> None:
        while not self._ended.wait(self._holder.silence_seconds / BEATS):
            self._holder = replace(self._holder, beats=self._holder.beats + 1, last=now())
            try:
                if not lease_files.replace(self._path, self._holder):
                    return
            except OSError as error:
                if error.errno in GONE:
                    return  # the next check says so
                # Otherwise a full disk, or a server that does not answer: the next one may succeed.


@contextmanager
def held(
    folder: Path,
    *,
    key: str = "run_dir",
    takeover: bool = False,
    silence_seconds: float = SILENCE_SECONDS,
    note: Note = lambda text: None,
    here: Place | None = None,
) -> Iterator[Lease]:
    """Hold the lease of ``folder``, which is made, and removed again at the end if nothing was written into it.

    Args:
        key: the configuration key or option that names the folder, for messages.
        takeover: take the lease of a holder whose heartbeat does not change for ``silence_seconds``, or for the holder's own,
            where those are more.
        note: gets what a person should know: whom this process waits for, and whose lease it has taken over.
        here: where this process is; None: found out.

    Raises:
        ConfigError: another process holds it, or it cannot be written. One line.
    """
    folder = folder.absolute()
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    wish = _Wish(key, takeover, note, here or this_place())
    try:
        lease = _take(folder, wish, this_process(wish.here, silence_seconds))
        try:
            yield lease
        finally:
            lease.release()
    finally:
        _remove_empty(made)


@dataclass(frozen=True, slots=True)
class _Wish:
    """How a process wants a lease."""

    key: str
    takeover: bool
    note: Note
    here: Place


def _take(folder: Path, wish: _Wish, holder: Holder) -> Lease:
    leases, why = folder / lease_files.FOLDER, ""
    for _ in range(MOST_TRIES):
        try:
            path = _try(leases, wish, holder)
        except OSError as error:
            why = error.strerror or str(error)
            if error.errno not in GONE:
                break
            continue  # a holder that has just ended removed what was looked at
        if path is not None:
            return Lease(path, holder)
    raise ConfigError(f"{wish.key}: {folder}: its lease ({leases.name}) cannot be written: {why or 'too many want it'}")


def _try(leases: Path, wish: _Wish, holder: Holder) -> Path | None:
    """The file of the lease that this process has got. None: another was faster. Raises ConfigError, OSError."""
    with lease_files.claim(leases, holder) as claim:
        newest = claim.newest()
        whose = _await_end(leases / str(newest), wish, holder.silence_seconds) if newest else ""
        if not (claim.win(newest + 1) and claim.remove_earlier(newest + 1)):
            return None
    if whose:
        wish.note(whose)
    return leases / str(newest + 1)


def _await_end(path: Path, wish: _Wish, silence_seconds: float) -> str:
    """Return if the lease of ``path`` may be taken over, with the reason. Raises ConfigError if not, OSError if it is gone."""
    folder = path.parent.parent
    record, holder = lease_files.read(path)
    if holder is not None and (alive := is_alive(holder, wish.here)) is not None:
        if alive:
            raise _refused(folder, wish, holder, f"it is alive; wait for it, or end it (kill {holder.pid})")
        return f"{folder} {_who(holder)}; that process has ended, so its lease is taken over"
    seconds = max(silence_seconds, holder.silence_seconds if holder else 0.0)
    wish.note(f"{folder} {_who(holder)}; looking for up to {seconds:g} s whether it is alive")
    silent = f"its heartbeat has not changed in {seconds:g} s"
    if _changes(path, record, seconds):
        raise _refused(folder, wish, lease_files.read(path)[1], "its heartbeat goes on; wait for it, or end it there")
    if not wish.takeover:
        raise _refused(folder, wish, holder, f"{silent}; if that process cannot be alive any more, add --takeover")
    return f"{folder} {_who(holder)}; {silent}, and --takeover was given: taken over"


def _changes(path: Path, record: bytes, seconds: float) -> bool:
    """Whether a lease's file changes within that time. This process's own looks are counted: it may be stopped too."""
    for _ in range(LOOKS):
        time.sleep(seconds / LOOKS)
        if path.read_bytes() != record:
            return True
    return False


def _who(holder: Holder | None) -> str:
    if holder is None:
        return "is held by a process that is not known (its lease cannot be read)"
    return f"is held by {holder.process} ({holder.times} by its own clock)"


def _refused(folder: Path, wish: _Wish, holder: Holder | None, what: str) -> ConfigError:
    return ConfigError(f"{wish.key}: {folder} {_who(holder)}, and a run's directory has one writer: {what}")


def _remove_empty(folders: list[Path]) -> None:
    for path in folders:
        try:
            path.rmdir()
        except OSError:
            return
