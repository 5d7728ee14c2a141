"""A deadline is CPU time: how busy the machine is decides neither which rows are used nor how a response is judged."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from renio_pipeline.grading.grader import DEADLINE
from renio_pipeline.grading.screening import RowScreening
from renio_pipeline.sandbox.deadline import Deadline
from renio_pipeline.sandbox.trial import ALL_SECONDS
from renio_pipeline.tasks import make_task
from renio_pipeline.types import Row
from tests.unit.grading.test_grader import judge, rollout, workers

BUSY = """
import os, time
from pathlib import Path

def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass

burn(IMPORT)  # a slow import, when the task is made
used = []

class Busy:
    def __init__(self, folder):
        self.folder = folder

    def messages(self, row):
        return [{"role": "user", "content": row.problem}]

    def _first_use(self):
        if not used:
            used.append(True)
            burn(IMPORT)  # a slow import, on first use

    def verify(self, row, text):
        self._first_use()
        flag = Path(self.folder, "begun")
        if text == "work":
            flag.touch()
            burn(0.5)
        if text.startswith("work on "):
            os.sched_setaffinity(0, [int(text.removeprefix("work on "))])
            began = time.monotonic()
            burn(0.5)
            Path(self.folder, "seconds").write_text(str(time.monotonic() - began))
            return "correct"
        if text == "spins once" and not flag.exists():
            flag.touch()
            burn(600)
        if text == "sleeps":
            time.sleep(600)
        return "correct" if text == row.answer else "incorrect"

    def fault(self, row):
        self._first_use()
        if row.answer == "work":
            Path(self.folder, "begun").touch()
            burn(0.5)
        return None

    def final_answer(self, text):
        return str(os.getpid())
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[[float], Any]:
    """A task whose imports take so many seconds of CPU time."""

    def made(seconds: float = 0.0) -> Any:
        path = tmp_path / "busy.py"
        path.write_text(BUSY.replace("IMPORT", str(seconds)))
        return make_task(f"{path}:Busy", {"folder": str(tmp_path)})

    return made


@contextmanager
def starved(flag: Path, seconds: float) -> Iterator[list[int]]:
    """The worker gets no CPU for so long from when it began its work; yields the process ids that it happened to."""
    pids: list[int] = []

    def starve() -> None:
        until = time.monotonic() + 60
        while not flag.exists() and time.monotonic() < until:
            time.sleep(0.01)
        found = workers()
        for worker in found:
            worker.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        for worker in found:
            worker.send_signal(signal.SIGCONT)
        pids.extend(worker.pid for worker in found)

    thread = Thread(target=starve)
    thread.start()
    try:
        yield pids
    finally:
        thread.join()


@contextmanager
def busy_neighbours(cpu: int) -> Iterator[None]:
    burner = f"import os\nos.sched_setaffinity(0, [{cpu}])\nwhile os.getppid() == {os.getpid()}: pass"  # ends with the test
    # In sessions of their own: where Linux schedules by session, each of them counts as much as the worker.
    neighbours = [psutil.Popen([sys.executable, "-c", burner], start_new_session=True) for _ in range(5)]
    try:
        yield
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()


def row(answer: str, number: int = 0) -> Row:
    return Row(id=str(number), problem="p", answer=answer)


@pytest.mark.slow
def test_a_verifier_whose_imports_take_longer_than_the_deadline_loses_no_row(make: Callable[[float], Any]) -> None:
    with RowScreening(make(1.0), Deadline(cpu_seconds=0.4, idle_seconds=60)) as screening:
        assert list(screening.faults([row("a", i) for i in range(3)])) == [None] * 3


@pytest.mark.slow
def test_nor_does_it_change_a_verdict(make: Callable[[float], Any]) -> None:
    found = judge(make(1.0), rollout("yes"), rollout("no", "yes", 1), deadline=Deadline(cpu_seconds=0.4, idle_seconds=60))
    assert [(j.verdict, j.given_up) for j in found] == [("correct", False), ("incorrect", False)]


@pytest.mark.slow
def test_a_starved_worker_loses_no_row(make: Callable[..., Any], tmp_path: Path) -> None:
    task = make()
    with RowScreening(task, Deadline(cpu_seconds=1, idle_seconds=60)) as screening:
        with starved(tmp_path / "begun", 3) as pids:
            assert list(screening.faults([row("a"), row("work", 1), row("b", 2)])) == [None] * 3
        assert [worker.pid for worker in workers()] == pids, "the row was tried once, and by the starved process"


@pytest.mark.slow
def test_a_starved_worker_changes_no_verdict(make: Callable[..., Any], tmp_path: Path) -> None:
    with starved(tmp_path / "begun", 3) as pids:
        (found,) = judge(make(), rollout("work"), deadline=Deadline(cpu_seconds=1, idle_seconds=60))
    assert (found.verdict, found.given_up) == ("correct", False)
    assert [found.answer] == [str(pid) for pid in pids]


@pytest.mark.slow
def test_a_worker_beside_busy_neighbours_is_not_cut_off_by_the_clock(make: Callable[..., Any], tmp_path: Path) -> None:
    """Half a second of CPU time on a CPU that five other processes want too: several seconds by the clock."""
    cpu, began = min(os.sched_getaffinity(0)), time.monotonic()
    with busy_neighbours(cpu):
        (found,) = judge(make(), rollout(f"work on {cpu}"), deadline=Deadline(cpu_seconds=1, idle_seconds=1))
    assert (found.verdict, found.given_up) == ("correct", False)
    worked = float((tmp_path / "seconds").read_text())
    assert worked > 1.5, f"the work took {worked} of {time.monotonic() - began} s: nobody was in its way"


@pytest.mark.slow
def test_a_verdict_that_takes_too_long_is_tried_once_more_in_a_fresh_process(make: Callable[..., Any]) -> None:
    deadline = Deadline(cpu_seconds=1, idle_seconds=60)
    (found,) = judge(make(), rollout("spins once"), deadline=deadline)
    assert (found.verdict, found.given_up) == ("correct", False)


@pytest.mark.slow
def test_a_verifier_that_sleeps_for_ever_is_cut_off_by_the_clock(make: Callable[..., Any]) -> None:
    began = time.monotonic()
    (found,) = judge(make(), rollout("sleeps"), deadline=Deadline(cpu_seconds=600, idle_seconds=1))
    assert (found.verdict, found.given_up) == ("incorrect", True)
    assert time.monotonic() - began < 60


def test_a_sandbox_ends_its_programs_by_its_own_limits_before_the_graders_deadline() -> None:
    assert DEADLINE.idle_seconds > ALL_SECONDS


def test_rows_can_be_screened_while_an_event_loop_runs(make: Callable[..., Any]) -> None:
    async def screen() -> list[str | None]:
        with RowScreening(make()) as screening:
            return list(screening.faults([row("a")]))

    assert asyncio.run(screen()) == [None]


PATIENT = """
import os, time
os.sched_setaffinity(0, [CPU])
began = time.monotonic()
while time.process_time() < 0.8: pass
print(time.monotonic() - began > 2.5)
"""


@pytest.mark.slow
def test_a_program_in_its_box_is_not_judged_by_how_busy_the_machine_is() -> None:
    """0.8 s of CPU time, of one allowed, on a CPU that five other processes want too: longer than the two of idleness
    allowed."""
    cpu = min(os.sched_getaffinity(0))
    row = Row(id="0", problem="p", tests='{"inputs": [""], "outputs": ["True"]}')
    with busy_neighbours(cpu):
        verdict = make_task("code", {"seconds": 1}).verify(row, f"```python{PATIENT.replace('CPU', str(cpu))}```")
    assert verdict == "correct"
