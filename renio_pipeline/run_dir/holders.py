"""Who holds a run's directory: a process of one boot of one machine, and whether that process still exists.

A process id has a meaning only where it was given: within one PID namespace (a container has its own) of one boot of one
machine. Linux's boot id and the namespace's number tell whether a recorded process belongs to the place of this one. An id that
was given again, to another process, is told by the start time, which the kernel counts from the boot.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_BYTES = 1024  # of a record: it is replaced in place, so all versions have one length
DEAD = "ZX"  # states of a process that has ended, in /proc/PID/stat: not yet waited for by its parent, or being removed


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where process ids are known."""

    host: str  # for people
    boot: str  # the kernel's id of this boot; empty where there is none, as on systems other than Linux
    pids: str  # the PID namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A lease's record. Times are those of the holder's clock, for people: no decision compares them with another clock."""

    token: str  # random: no two leases have the same
    host: str
    boot: str
    pids: str
    pid: int
    started: int | None  # clock ticks from the boot to the process's start
    since: str
    silence_seconds: float  # how long an observer must see no heartbeat before the lease may be taken over
    beats: int = 0
    last: str = ""  # time of the last heartbeat

    @property
    def process(self) -> str:
        """``process 4711 on node7``."""
        return f"process {self.pid} on {self.host}"

    @property
    def times(self) -> str:
        """``since 2026-01-02 10:00:00, last heartbeat 2026-01-02 10:05:10``."""
        return f"since {self.since}, last heartbeat {self.last}"

    def encoded(self) -> bytes:
        """``MOST_BYTES`` bytes of JSON, the token first."""
        import msgspec

        found = msgspec.json.encode(self)
        assert len(found) < MOST_BYTES, f"a lease's record has {len(found)} bytes"
        return found.ljust(MOST_BYTES - 1) + b"\n"


def this_place() -> Place:
    """The place of this process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        pids = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = pids = ""
    return Place(host=socket.gethostname()[:64], boot=boot, pids=pids)


def this_process(place: Place, silence_seconds: float) -> Holder:
    """A new record of this process, which is in ``place``."""
    pid, since = os.getpid(), now()
    return Holder(
        token=secrets.token_hex(16),
        host=place.host,
        boot=place.boot,
        pids=place.pids,
        pid=pid,
        started=_state_and_start(pid)[1],
        since=since,
        silence_seconds=silence_seconds,
        last=since,
    )


def decoded(record: bytes) -> Holder | None:
    """The holder that a record names; None if it is torn, or no record."""
    import msgspec

    try:
        found: Any = msgspec.json.decode(record, type=Holder)
    except (msgspec.DecodeError, UnicodeDecodeError):  # a ValidationError is a DecodeError
        return None
    known: Holder = found
    return known if 0 < known.pid < 2**31 and 0 < known.silence_seconds < 1e9 and len(known.token) == 32 else None


def now() -> str:
    """The local time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S")


def is_alive(holder: Holder, here: Place) -> bool | None:
    """Whether the holder's process exists. None: that cannot be known from ``here``."""
    if not here.boot or (holder.boot, holder.pids) != (here.boot, here.pids):
        return None
    state, started = _state_and_start(holder.pid)
    if started is not None:
        return state not in DEAD and started == holder.started
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True  # /proc hides it from this user


def _state_and_start(pid: int) -> tuple[str, int | None]:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return "", None
    fields = text.rpartition(b")")[2].split()  # the name of the program, in brackets, may hold anything
    return fields[0].decode(), int(fields[19])
