"""The lease of a run's directory: one process has it, whatever the others do and in whichever order."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.run_dir import lease, lease_files
from renio_pipeline.run_dir.fence import LeaseLostError
from renio_pipeline.run_dir.holders import Holder, Place, is_alive, this_place, this_process

ELSEWHERE = Place(host="elsewhere", boot="another-boot", pids="pid:[1]")
SHORT = 0.3  # seconds of silence


def lease_of(folder: Path) -> Path:
    """The lease's file."""
    numbers = [path for path in (folder / lease_files.FOLDER).iterdir() if path.name.isdecimal()]
    return max(numbers, key=lambda path: int(path.name))


def written(folder: Path, record: bytes, number: int = 1) -> Path:
    """A lease with that record, as a process that is gone left it."""
    path = folder / lease_files.FOLDER / str(number)
    path.parent.mkdir(parents=True)
    path.write_bytes(record)
    return path


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught, lease.held(folder, **options):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def script(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], text=True, stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )


def test_it_is_there_while_it_is_held_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "new"
    with lease.held(folder) as held:
        held.fence.check()
        assert [path.name for path in (folder / ".lease").iterdir()] == ["1"]
    assert list(tmp_path.iterdir()) == [], "the folders that it made, in which nothing was written"
    with lease.held(folder):
        (folder / "config.yaml").touch()
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_a_failure_releases_it(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), lease.held(tmp_path):
        raise error
    with lease.held(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_of_many_threads_one_has_it_in_every_round(tmp_path: Path) -> None:
    rounds, threads = 10, 12
    barrier = threading.Barrier(threads)
    winners: list[list[int]] = [[] for _ in range(rounds)]
    errors: list[Exception] = []

    def want(me: int) -> None:
        for n in range(rounds):
            barrier.wait(60)
            with ExitStack() as stack:
                try:
                    stack.enter_context(lease.held(tmp_path))
                    winners[n].append(me)
                except ConfigError as error:
                    errors.append(error)
                barrier.wait(60)  # the one that has it holds it until all others have asked

    running = [threading.Thread(target=want, args=(me,)) for me in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert [len(found) for found in winners] == [1] * rounds
    assert len(errors) == rounds * (threads - 1)


@pytest.mark.slow
def test_of_many_processes_one_takes_over_from_a_dead_one_in_every_round(tmp_path: Path) -> None:
    """All of them find the same dead holder at the same moment."""
    process = script(f"""
        import os, signal
        from pathlib import Path
        from renio_pipeline.config import ConfigError
        from renio_pipeline.run_dir import lease

        def forked(work):
            pid = os.fork()
            if not pid:
                try:
                    work()
                finally:
                    os._exit(0)
            return pid

        def die():
            with lease.held(folder):
                os.kill(os.getpid(), signal.SIGKILL)

        def want():
            ready.read(1)
            try:
                with lease.held(folder, note=lambda text: os.write(noted[1], b"n")):
                    os.write(won[1], b"w")
                    done.read(1)
            except ConfigError:
                os.write(won[1], b"-")

        def pipe():
            ends = os.pipe()
            return os.fdopen(ends[0], "rb", buffering=0), ends[1]

        for n in range(4):
            folder = Path({str(tmp_path)!r}) / str(n)
            os.waitpid(forked(die), 0)
            won, noted = os.pipe(), os.pipe()
            (ready, go), (done, end) = pipe(), pipe()
            children = [forked(want) for _ in range(10)]
            os.write(go, b"." * 10)
            print(b"".join(os.read(won[0], 1) for _ in children).count(b"w"), len(os.read(noted[0], 100)), flush=True)
            os.write(end, b"." * 10)
            for pid in children:
                os.waitpid(pid, 0)
            print([path.name for path in folder.iterdir()], flush=True)
    """)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert output == "1 1\n[]\n" * 4


def test_a_holder_that_was_killed_is_taken_over_at_once_and_that_is_said(tmp_path: Path) -> None:
    process = script(f"""
        import os, signal
        from pathlib import Path
        from renio_pipeline.run_dir import lease
        with lease.held(Path({str(tmp_path)!r})):
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its parent has not waited for it: its id is still taken
    before, notes = lease_of(tmp_path), list[str]()
    with lease.held(tmp_path, note=notes.append) as held:
        held.fence.check()
        assert lease_of(tmp_path).name == "2"
        assert not before.exists()
    assert len(notes) == 1
    assert f"is held by process {process.pid} on {this_place().host} (since 20" in notes[0]
    assert notes[0].endswith("that process has ended, so its lease is taken over")
    assert process.wait() == -signal.SIGKILL
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.close()
    process.stdin.close()


def test_a_process_id_that_was_given_again_is_another_process(tmp_path: Path) -> None:
    own = this_process(this_place(), 60)
    assert is_alive(own, this_place())
    assert own.started is not None
    earlier = replace(own, started=own.started - 1)
    assert is_alive(earlier, this_place()) is False
    written(tmp_path, earlier.encoded())
    with lease.held(tmp_path):
        pass


def test_a_process_of_another_user_is_alive_also_where_nothing_can_be_read_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with /proc mounted so that processes of others are hidden."""
    monkeypatch.setattr("renio_pipeline.run_dir.holders._state_and_start", lambda pid: ("", None))

    def kill(pid: int, number: int) -> None:
        raise PermissionError if pid == 1 else ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    holder = Holder(
        token="t", host="h", boot=this_place().boot, pids=this_place().pids, pid=1, started=7, since="", silence_seconds=1
    )
    assert is_alive(holder, this_place()) is True
    assert is_alive(replace(holder, pid=2), this_place()) is False


@pytest.mark.parametrize("place", [ELSEWHERE, replace(this_place(), pids="pid:[7]"), replace(this_place(), boot="")], ids=str)
def test_a_process_id_says_nothing_in_another_container_machine_or_boot(place: Place) -> None:
    assert is_alive(this_process(place, 60), this_place()) is None
    assert is_alive(this_process(this_place(), 60), replace(place, boot="")) is None


def test_a_live_holder_refuses_with_who_and_since_when_and_what_to_do(tmp_path: Path) -> None:
    with lease.held(tmp_path):
        before = lease_of(tmp_path).read_bytes()
        text = refusal(tmp_path, key="name")
        assert text.startswith(f"name: {tmp_path} is held by process {os.getpid()} on {this_place().host} (since 20")
        assert "last heartbeat 20" in text
        assert text.endswith(f"it is alive; wait for it, or end it (kill {os.getpid()})")
        assert "it is alive" in refusal(tmp_path, takeover=True), "a holder that is alive is not taken over"
        assert lease_of(tmp_path).read_bytes() == before
        assert len(list((tmp_path / ".lease").iterdir())) == 1


@pytest.mark.parametrize("takeover", [False, True])
def test_a_holder_on_another_machine_whose_heartbeat_goes_on_refuses(tmp_path: Path, takeover: bool) -> None:
    with lease.held(tmp_path, here=ELSEWHERE, silence_seconds=SHORT) as held:
        text = refusal(tmp_path, takeover=takeover, silence_seconds=30)
        assert text.endswith("its heartbeat goes on; wait for it, or end it there")
        assert "on elsewhere (since" in text
        held.fence.check()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holders whose machine is gone, or stopped: no heartbeat comes."""
    monkeypatch.setattr(lease.Lease, "_beat", lambda self: None)


def test_a_silent_holder_on_another_machine_is_taken_over_only_when_a_person_says_so(tmp_path: Path, silent: None) -> None:
    notes: list[str] = []
    with lease.held(tmp_path, here=ELSEWHERE, silence_seconds=SHORT) as lost:
        text = refusal(tmp_path, silence_seconds=0.01, note=notes.append)
        assert text.endswith(
            "its heartbeat has not changed in 0.3 s; if that process cannot be alive any more, add --takeover"
        ), "the time is the holder's own, which is longer"
        assert "looking for up to 0.3 s" in notes[0]
        lost.fence.check()
        with lease.held(tmp_path, takeover=True, silence_seconds=0.01, note=notes.append) as held:
            assert notes[-1].endswith("and --takeover was given: taken over")
            held.fence.check()
            with pytest.raises(LeaseLostError, match=r"another driver has taken this run's directory over"):
                lost.fence.check()
        with pytest.raises(LeaseLostError):
            lost.fence.check()


def test_a_holder_that_lost_its_lease_leaves_the_next_ones_alone_when_it_ends(tmp_path: Path, silent: None) -> None:
    with ExitStack() as ended, lease.held(tmp_path / "other"):
        lost = ended.enter_context(lease.held(tmp_path, here=ELSEWHERE, silence_seconds=0.01))
        with lease.held(tmp_path, takeover=True, silence_seconds=0.01) as held:
            ended.close()
            held.fence.check()
            with pytest.raises(LeaseLostError):
                lost.fence.check()


def test_a_heartbeat_does_not_bring_back_a_lease_that_was_taken_over(tmp_path: Path) -> None:
    """A process that wakes writes its heartbeat before anything else looks."""
    holder = this_process(ELSEWHERE, 1)
    path = written(tmp_path, holder.encoded())
    assert lease_files.replace(path, replace(holder, beats=1))
    path.unlink()
    with pytest.raises(FileNotFoundError):
        lease_files.replace(path, replace(holder, beats=2))
    assert not path.exists()
    path.write_bytes(this_process(ELSEWHERE, 1).encoded())
    before = path.read_bytes()
    assert not lease_files.replace(path, replace(holder, beats=2))
    assert path.read_bytes() == before


GARBAGE = {
    "empty": b"",
    "torn": this_process(ELSEWHERE, 60).encoded()[:100],
    "binary": bytes(range(256)),
    "other JSON": b"[1, 2]",
    "other types": b'{"token": 5, "pid": "x"}',
    "no process": replace(this_process(this_place(), 60), pid=-1).encoded(),
    "too large a number": this_process(this_place(), 60).encoded().replace(b'"pid":', b'"pid":9999999999'),
}


@pytest.mark.parametrize("record", GARBAGE.values(), ids=GARBAGE)
def test_a_lease_that_cannot_be_read_is_watched_and_needs_a_person(tmp_path: Path, record: bytes) -> None:
    path = written(tmp_path, record)
    text = refusal(tmp_path, silence_seconds=0.05)
    assert "is held by a process that is not known (its lease cannot be read)" in text
    assert text.endswith("add --takeover")
    assert path.read_bytes() == record
    with lease.held(tmp_path, silence_seconds=0.05, takeover=True) as held:
        held.fence.check()


def test_a_lease_that_cannot_be_read_but_is_written_to_is_somebodys(tmp_path: Path) -> None:
    path = written(tmp_path, b"{")
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(0.02):
            path.write_bytes(path.read_bytes() + b"{")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert "its heartbeat goes on" in refusal(tmp_path, silence_seconds=5, takeover=True)
    finally:
        ended.set()
        thread.join()


def test_a_lease_that_is_released_while_it_is_watched_is_free(tmp_path: Path, silent: None) -> None:
    with ExitStack() as stack:
        stack.enter_context(lease.held(tmp_path, here=ELSEWHERE, silence_seconds=5))
        with lease.held(tmp_path, note=lambda text: stack.close(), silence_seconds=5) as held:
            held.fence.check()


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.ENOENT])
def test_a_folder_that_cannot_be_written_is_refused_by_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(lease_files, "claim", fail)
        text = refusal(tmp_path / "run")
    assert text == f"run_dir: {tmp_path / 'run'}: its lease (.lease) cannot be written: {os.strerror(code)}"
    (tmp_path / ".lease").write_text("a file")
    assert refusal(tmp_path).startswith(f"run_dir: {tmp_path}: its lease (.lease) cannot be written: ")


def test_a_lease_that_was_won_but_not_cleaned_up_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(tmp_path, replace(this_process(this_place(), 60), started=1).encoded())
    unlink = os.unlink

    def fail(name: str, *, dir_fd: int | None = None) -> None:
        if name == before.name:
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(name, dir_fd=dir_fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", fail)
        assert refusal(tmp_path).endswith("cannot be written: Permission denied")
    assert lease_of(tmp_path) == before
    with lease.held(tmp_path):
        pass


def test_without_hard_links_one_of_many_has_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    test_of_many_threads_one_has_it_in_every_round(tmp_path)


def test_a_link_whose_answer_was_lost_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system's client asks again, and is told that the name exists."""
    link = os.link

    def twice(*arguments: Any, **options: Any) -> None:
        link(*arguments, **options)
        link(*arguments, **options)

    monkeypatch.setattr(os, "link", twice)
    with lease.held(tmp_path) as held:
        held.fence.check()


class Actor:
    """A process that takes and releases the lease again and again, step by step, so that others come in between any two steps.

    One that is ``silent`` is taken over by whoever looks at its lease, and goes on all the same: it was only stopped.
    """

    def __init__(self, folder: Path, silent: set[str], chance: random.Random) -> None:
        self._folder, self._silent, self._chance = folder, silent, chance
        self.path: Path | None = None  # of the lease that it believes to hold
        self.taken = 0
        self._steps = self._go()

    def step(self) -> None:
        next(self._steps)

    def holds(self) -> bool:
        return self.path is not None and self.path.exists() and self.holder.token.encode() in self.path.read_bytes()

    def _go(self) -> Iterator[None]:
        while True:
            self.holder = this_process(ELSEWHERE, 1)
            if self._chance.random() < 0.5:
                self._silent.add(self.holder.token)
            with suppress(FileNotFoundError), lease_files.claim(self._folder, self.holder) as claim:
                yield from self._take(claim)
            for _ in range(self._chance.choice([0, 0, 5])):
                yield
            if self.holds():
                lease_files.remove(self._folder, self.holder.token)
            self.path = None

    def _take(self, claim: lease_files.Claim) -> Iterator[None]:
        yield
        newest = claim.newest()
        yield
        if newest:
            holder = lease_files.read(self._folder / str(newest))[1]
            assert holder is not None
            if holder.token not in self._silent:
                return
        yield
        if claim.win(newest + 1):
            yield
            if claim.remove_earlier(newest + 1):
                self.path = self._folder / str(newest + 1)
                self.taken += 1
        yield


@pytest.mark.slow
def test_however_processes_interleave_no_two_hold_it_and_a_live_one_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 20000 steps of five processes, each of which may be overtaken, or taken over, between any two of its steps."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    taken = 0
    for seed in range(20):
        chance, silent = random.Random(seed), set[str]()
        actors = [Actor(tmp_path / str(seed) / lease_files.FOLDER, silent, chance) for _ in range(5)]
        for _ in range(1000):
            chance.choice(actors).step()
            assert sum(actor.holds() for actor in actors) <= 1, seed
            believing = [actor for actor in actors if actor.path is not None and actor.holder.token not in silent]
            assert all(actor.holds() for actor in believing), f"{seed}: one that is alive was taken over"
        taken += sum(actor.taken for actor in actors)
    assert taken > 200, "they hardly ever came to it"
