"""The grader: fast tasks in place, slow ones in worker processes that may hang, die and raise without harm to the run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from renio_pipeline.grading.grader import DEADLINE, Grader, Judged
from renio_pipeline.sandbox.deadline import Deadline
from renio_pipeline.tasks import make_task
from renio_pipeline.types import FIRST_VERSION, Prompt, Rollout, Row
from tests.unit.sandbox.test_sandbox import gone, running

OWN = """
import os, re, subprocess, sys, time
from pathlib import Path

class Odd:
    def __eq__(self, other):
        return True

class Own:
    def __init__(self, folder: str = "") -> None:
        self.folder = folder

    def messages(self, row):
        return [{"role": "user", "content": row.problem}]

    def verify(self, row, text):
        if text == "hang":
            re.match("(a*)*b", "a" * 60)  # for ever, and deaf to signals: in C
        if text == "die":
            os._exit(3)
        if text == "die once":
            first = Path(self.folder, "first")
            if not first.exists():
                first.touch()
                os.kill(os.getpid(), 9)
        if text.startswith("sleep"):
            subprocess.run(text.split())
        if text == "odd":
            return Odd()
        if text == "raise":
            raise KeyError("no such thing")
        if text == "loud":
            print("x" * 100000)
            print(sys.stdin.read(), flush=True)
        if text == "":
            return "unfinished"
        return "correct" if text == row.answer else "incorrect"

    def final_answer(self, text):
        return {text} if text == "no text" else f"{text} by {os.getpid()}"
"""


class Letters:
    """A tokenizer: a byte a token."""

    def decode(self, ids: Any, skip_special_tokens: bool) -> str:
        return bytes(ids.tolist()).decode()


def rollout(text: str, answer: str | None = None, sample_id: int = 0, cut: bool = False, **row: Any) -> Rollout:
    nothing = np.zeros(1, np.int32)
    made = Row(id=str(sample_id), problem="", answer=answer or text, **row)
    return Rollout(
        prompt=Prompt(sample_id=sample_id, row=made, student_ids=nothing, teacher_ids=nothing),
        logprobs=np.zeros(1, np.float32),
        token_ids=np.frombuffer(text.encode(), np.uint8),
        stop_reason="length" if cut else "stop",
        version=FIRST_VERSION,
    )


@pytest.fixture
def own(tmp_path: Path) -> Any:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return make_task(f"{path}:Own", {"folder": str(tmp_path)})


QUICK = Deadline(cpu_seconds=1, idle_seconds=1)


def judge(task: Any, *rollouts: Rollout, deadline: Deadline = DEADLINE, workers: int = 2) -> list[Judged]:
    async def all_of_them() -> list[Judged]:
        async with Grader(task, Letters(), deadline=deadline, workers=workers) as grader:
            return await asyncio.gather(*map(grader.judge, rollouts))

    return asyncio.run(all_of_them())


def workers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "renio_pipeline.grading.worker_main" in child.cmdline():
                found.append(child)
    return found


def test_a_slow_task_is_graded_by_a_few_processes_that_end_with_the_grader(own: Any) -> None:
    found = judge(own, *(rollout("yes" if i % 3 else "no", "yes", i) for i in range(12)))
    assert [j.verdict for j in found] == ["correct" if i % 3 else "incorrect" for i in range(12)]
    pids = {str(j.answer).split(" by ")[1] for j in found}
    assert 1 <= len(pids) <= 2
    assert str(os.getpid()) not in pids
    assert workers() == []


@pytest.mark.slow
def test_a_verifier_that_hangs_costs_its_response_alone(own: Any) -> None:
    async def and_one_more() -> list[Judged]:
        async with Grader(own, Letters(), deadline=QUICK, workers=2) as grader:
            others = [grader.judge(rollout("yes", sample_id=i)) for i in range(1, 8)]
            found = await asyncio.gather(grader.judge(rollout("hang")), *others)
            return [*found, await grader.judge(rollout("yes", sample_id=9))]

    found = asyncio.run(and_one_more())
    assert (found[0].verdict, found[0].given_up, found[0].answer) == ("incorrect", True, None)
    assert [(j.verdict, j.given_up) for j in found[1:]] == [("correct", False)] * 8
    assert workers() == []


@pytest.mark.slow
def test_a_verifier_that_hangs_never_stops_the_event_loop(own: Any) -> None:
    """It hangs for as long as this takes: the deadline is a minute of a core."""

    async def beside_it() -> list[Judged]:
        async with Grader(own, Letters(), workers=2) as grader:
            hanging = asyncio.create_task(grader.judge(rollout("hang")))
            found = await asyncio.gather(*(grader.judge(rollout("yes", sample_id=i)) for i in range(1, 8)))
            assert not hanging.done()
            hanging.cancel()
        return found

    assert [(j.verdict, j.given_up) for j in asyncio.run(beside_it())] == [("correct", False)] * 7
    assert workers() == []


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_response_a_second_try(own: Any) -> None:
    found = judge(own, rollout("die once"), rollout("die", sample_id=1), rollout("yes", sample_id=2))
    assert [(j.verdict, j.given_up) for j in found] == [("correct", False), ("incorrect", True), ("correct", False)]


def test_a_task_that_raises_ends_the_run_with_its_own_traceback(own: Any) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)the task raised while it graded.*own.py.*KeyError: 'no such thing'"):
        judge(own, rollout("raise"))
    assert workers() == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no text", "final_answer must return text or None, not {'no text'}, for 'no text'"),
        ("odd", "'unfinished', a score from 0 to 1, or None, not <"),  # though it equals each of the verdicts
    ],
)
def test_an_answer_that_cannot_be_sent_ends_the_run_instead_of_being_wrong(own: Any, text: str, told: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(told)):
        judge(own, rollout(text))


@pytest.mark.slow
def test_what_a_verifier_started_ends_with_its_deadline(own: Any) -> None:
    nap = f"59.{os.getpid()}"
    (found,) = judge(own, rollout(f"sleep {nap}"), deadline=QUICK)
    assert found.given_up
    assert gone(nap, 5)


def test_what_a_verifier_prints_and_reads_is_not_taken_for_a_verdict(own: Any) -> None:
    assert [j.verdict for j in judge(own, rollout("loud"), rollout("yes"), workers=1)] == ["correct", "correct"]


def test_a_response_that_was_cut_is_unfinished_without_being_graded(own: Any) -> None:
    (found,) = judge(own, rollout("hang", cut=True))
    assert (found.text, found.verdict, found.answer, found.given_up) == ("hang", "unfinished", None, False)


def test_a_fast_task_is_graded_in_place_without_a_process() -> None:
    grader = Grader(make_task("plain"), Letters())
    with pytest.raises(StopIteration) as done:
        grader.judge(rollout("7", "7")).send(None)  # it never waits
    assert (done.value.value.verdict, done.value.value.answer) == ("correct", "7")
    assert workers() == []


def test_judging_that_is_called_off_leaves_no_process(own: Any) -> None:
    async def call_off() -> None:
        async with Grader(own, Letters(), workers=1) as grader:
            task = asyncio.create_task(grader.judge(rollout("hang")))
            while not workers():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert (await grader.judge(rollout("yes"))).verdict == "correct"

    asyncio.run(call_off())
    assert workers() == []


@pytest.mark.slow
def test_nothing_survives_a_driver_that_is_killed(tmp_path: Path) -> None:
    nap = f"57.{os.getpid()}"
    code = f"""
import asyncio
from tests.unit.grading.test_grader import Letters, rollout
from renio_pipeline.grading.grader import Grader
from renio_pipeline.tasks import make_task
text = "```python\\nimport os\\nos.execv('/usr/bin/sleep', ['sleep', '{nap}'])\\n```"
row = dict(tests='{{"inputs": ["1"], "outputs": ["1"]}}')
asyncio.run(Grader(make_task("code", {{"seconds": 20}}), Letters()).judge(rollout(text, **row)))
"""
    driver = subprocess.Popen([sys.executable, "-c", code])
    try:
        until = time.monotonic() + 60
        while not running(nap) and driver.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert running(nap), "a sandboxed program of the driver's grader"
        graders = [p.pid for p in psutil.Process(driver.pid).children()]
        assert graders
    finally:
        driver.kill()
        driver.wait()
    try:
        assert gone(nap, 10)
        assert not [pid for pid in graders if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    finally:
        for pid in running(nap):
            os.kill(pid, signal.SIGKILL)
