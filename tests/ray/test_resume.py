"""Checkpoint and resume on real engines: what a killed, stopped or moved run does afterwards is what it would have done."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from renio_pipeline import ledger
from tests.ray import runs
from tests.ray.runs import STEPS, VARIES, WHOLE, finish, lines_of, metrics, responses, written

LAST = f"checkpoints/step_{STEPS:06d}"


def train(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return runs.train(folder, *WHOLE, *arguments)


def wait_until(process: subprocess.Popen[str], condition: Callable[[], Any]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)


def kill_while_a_checkpoint_is_written(folder: Path) -> None:
    """A later one than the first: what was trained since the one before it is trained again."""
    process = train(folder, "--resume")  # nothing there yet: it starts
    checkpoints, partial = folder / "checkpoints", ".step_*.0.partial"
    wait_until(process, lambda: (checkpoints / "latest").exists())
    while True:
        wait_until(process, lambda: any(p.is_file() for p in checkpoints.glob(f"{partial}/**/*")))
        process.send_signal(signal.SIGSTOP)  # so that it cannot commit while we look again
        if list(checkpoints.glob(partial)):
            break
        process.send_signal(signal.SIGCONT)
    process.kill()
    process.communicate()
    assert list(checkpoints.glob(partial)), "nothing was half written: the test tests nothing"
    kept = int((checkpoints / "latest").read_text().strip().removeprefix("step_"))
    assert lines_of(folder / "metrics.jsonl")[-1]["step"] > kept > 0, "nothing is trained again: the test tests nothing"


def end_by_sigterm(folder: Path) -> None:
    process = train(folder, "--resume")
    wait_until(process, lambda: lines_of(folder / "ledger/rank_0.jsonl")[-1]["incarnation"] == 1)  # in its first step
    started = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    assert "Traceback" not in finish(process, 143, seconds=120)  # a minute of grace, and the shutdown
    _, left = psutil.wait_procs(started, timeout=60)
    assert not left, "it left processes behind"
    last = lines_of(folder / "metrics.jsonl")[-1]["step"]
    assert last < STEPS, "the run ended before the signal came: the test tests nothing"
    assert (folder / "checkpoints/latest").read_text().strip() == f"step_{last:06d}"


@pytest.mark.timeout(1200)
def test_a_run_killed_and_stopped_ends_digit_for_digit_as_one_that_was_not(whole_run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    kill_while_a_checkpoint_is_written(broken)
    end_by_sigterm(broken)
    finish(train(broken, "--resume"))

    assert metrics(broken) == metrics(whole_run)
    assert written(broken) == written(whole_run)
    weights = f"{LAST}/hf/model.safetensors"
    assert (broken / weights).read_bytes() == (whole_run / weights).read_bytes()
    assert _result(broken) == _result(whole_run)
    assert [line["incarnation"] for line in lines_of(broken / "resumes.jsonl")] == [1, 2]
    assert ledger.history(broken) == ledger.history(whole_run)
    for folder in (whole_run, broken):
        ledger.prove_exactly_once(folder)
    assert (ledger.replayed(whole_run), ledger.replayed(broken) > 0) == (0, True)


@pytest.mark.timeout(1200)
def test_a_run_goes_on_with_fewer_ranks_generators_and_teachers_as_it_would_have(whole_run: Path, tmp_path: Path) -> None:
    moved, kept = tmp_path / "moved", 4
    shutil.copytree(whole_run, moved)
    for step in range(kept + 1, STEPS + 1):
        shutil.rmtree(moved / f"checkpoints/step_{step:06d}", ignore_errors=True)
    (moved / "result.json").unlink()
    finish(train(moved, *(f"pools.{pool}.replicas=1" for pool in runs.POOLS), "--resume"))
    found, expected = metrics(moved), metrics(whole_run)
    assert found[:kept] == expected[:kept]
    assert [line["step"] for line in found] == list(range(1, STEPS + 1))
    assert {(r["generator"], r["teacher"]) for r in responses(moved) if r["version"].startswith("1.")} == {("0", "0")}
    for name in ("loss", "grad_norm", "weights/max", "eval/accuracy"):
        assert found[-1][name] == pytest.approx(expected[-1][name], rel=1e-3)
    assert found[-1]["lr"] == expected[-1]["lr"]
    ledger.prove_exactly_once(moved)
    assert [list(ranks) for ranks in ledger.history(moved).values()] == [[0, 1]] * kept + [[0]] * (STEPS - kept)
    assert [p.name for p in (moved / "checkpoints").glob(".*")] == [], "the scratch folder of the conversion was left"


def _result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found | {"first_step": {k: v for k, v in found["first_step"].items() if not k.startswith(VARIES)}}
