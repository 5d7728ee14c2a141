"""Checkpoint and resume on real engines: what a killed, stopped or moved run does afterwards is what it would have done."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline import ledger
from tests.ray.conftest import ROOT
from tests.ray.test_runs import metrics, responses

RUN = [
    "steps=8", "batch_size=16", "data.problems=64", "evaluate.problems=16", "evaluate.every=3", "checkpoint.every=2",
    "deterministic=true", "weighting.normalization=ema", "trainer.zero_stage=2", "pools.trainer.replicas=2",
    *(f"pools.{pool}.cpus=0.25" for pool in ("generator", "teacher", "trainer")),
]  # fmt: skip


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "renio_pipeline", "train", "--config", "configs/demo.yaml", f"run_dir={folder}", *RUN]
    return subprocess.Popen(
        [*command, *arguments], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    output, _ = process.communicate(timeout=500)
    assert process.returncode == code, output
    return output


def wait_until(process: subprocess.Popen[str], condition: Callable[[], Any]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def written(folder: Path) -> list[dict[str, Any]]:
    """Responses, without the incarnation of the weights that wrote them."""
    return [r | {"version": r["version"].partition(".")[2]} for r in responses(folder)]


def kill_at_a_random_point(folder: Path, *arguments: str) -> None:
    """After a step that a seed names, and a time that it names too."""
    rng = random.Random(20260623)
    process, steps, seconds = start(folder, *arguments), rng.randint(2, 5), rng.uniform(0, 0.4)
    wait_until(process, lambda: len(lines_of(folder / "metrics.jsonl")) >= steps)
    time.sleep(seconds)
    process.kill()
    process.communicate()


def kill_while_a_checkpoint_is_written(folder: Path) -> None:
    process = start(folder, "--resume")
    checkpoints, partial = folder / "checkpoints", ".step_*.1.partial"  # of this incarnation
    while True:
        wait_until(process, lambda: any(p.is_file() for p in checkpoints.glob(f"{partial}/**/*")))
        process.send_signal(signal.SIGSTOP)  # so that it cannot commit while we look again
        if list(checkpoints.glob(partial)):
            break
        process.send_signal(signal.SIGCONT)
    process.kill()
    process.communicate()
    assert list(checkpoints.glob(partial)), "nothing was half written: the test tests nothing"


def end_by_sigterm(folder: Path) -> None:
    process = start(folder, "--resume")
    wait_until(process, lambda: lines_of(folder / "ledger/rank_0.jsonl")[-1]["incarnation"] == 2)  # in its first step
    process.terminate()
    finish(process, 143)
    last = lines_of(folder / "metrics.jsonl")[-1]["step"]
    assert last < 8, "the run ended before the signal came: the test tests nothing"
    assert (folder / "checkpoints/latest").read_text().strip() == f"step_{last:06d}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupts."""
    folder: Path = tmp_path_factory.mktemp("runs") / "whole"
    finish(start(folder))
    return folder


@pytest.mark.timeout(1200)
def test_a_run_killed_twice_and_stopped_once_ends_digit_for_digit_as_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    kill_at_a_random_point(broken, "--resume")  # nothing there yet: it starts
    kill_while_a_checkpoint_is_written(broken)
    end_by_sigterm(broken)
    finish(start(broken, "--resume"))

    assert metrics(broken) == metrics(whole)
    assert written(broken) == written(whole)
    last = "checkpoints/step_000008/hf/model.safetensors"
    assert (broken / last).read_bytes() == (whole / last).read_bytes()
    assert _result(broken) == _result(whole)
    assert [line["incarnation"] for line in lines_of(broken / "resumes.jsonl")] == [1, 2, 3]
    assert ledger.history(broken) == ledger.history(whole)
    for folder in (whole, broken):
        ledger.prove_exactly_once(folder)
    assert (ledger.replayed(whole), ledger.replayed(broken) > 0) == (0, True)


@pytest.mark.timeout(1200)
def test_a_run_goes_on_with_fewer_ranks_and_more_generators_as_it_would_have(whole: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(whole, moved)
    shutil.rmtree(moved / "checkpoints/step_000008")
    (moved / "result.json").unlink()
    finish(start(moved, "pools.trainer.replicas=1", "pools.generator.replicas=2", "--resume"))
    found, expected = metrics(moved), metrics(whole)
    assert found[:6] == expected[:6]
    assert [line["step"] for line in found] == list(range(1, 9))
    assert {r["generator"] for r in responses(moved) if r["version"].startswith("1.")} == {"0", "1"}
    for name in ("loss", "grad_norm", "weights/max", "eval/accuracy"):
        assert found[7][name] == pytest.approx(expected[7][name], rel=1e-3)
    assert found[7]["lr"] == expected[7]["lr"]
    ledger.prove_exactly_once(moved)
    assert [list(ranks) for ranks in ledger.history(moved).values()] == [[0, 1]] * 6 + [[0]] * 2
    assert [p.name for p in (moved / "checkpoints").glob(".*")] == [], "the scratch folder of the conversion was left"


def _result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    varies = ("time/", "idle/", "memory/", "sync/publish", "sync/receive")
    return found | {"first_step": {k: v for k, v in found["first_step"].items() if not k.startswith(varies)}}
