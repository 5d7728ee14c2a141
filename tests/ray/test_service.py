"""Drivers on a cluster that runs already: what it lets in, what is refused there, and what is left when a driver dies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.ray.running_cluster import BIN, started_cluster, wait_until
from tests.ray.runs import ROOT, lines_of

QUICK = ["batch_size=8", "evaluate.problems=8", "data.problems=64"]
# What no other whole run covers: bf16, the sampled-token loss, the trainer's log-probabilities, two samples a prompt.
OTHER_WAYS = [
    "generator.dtype=bfloat16",
    "teacher.dtype=bfloat16",
    "trainer.dtype=bfloat16",
    "objective={type: sampled}",
    "student_logprobs=trainer",
    "samples_per_prompt=2",
]


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[dict[str, str]]:
    """The environment to reach a cluster that asks for a token."""
    with started_cluster() as cluster:
        yield cluster.environment


def test_a_cluster_without_the_token_is_closed(running_cluster: dict[str, str]) -> None:
    without = {k: v for k, v in running_cluster.items() if k != "RAY_AUTH_TOKEN"} | {"RAY_AUTH_TOKEN": "0" * 64}
    assert subprocess.run([BIN / "ray", "job", "list"], env=without, capture_output=True).returncode != 0


def test_what_could_never_run_there_is_refused_before_any_engine(running_cluster: dict[str, str], tmp_path: Path) -> None:
    relative = "runs/relative"  # and folders of their own: a run's directory has one writer
    cases = {
        "the pools need at least 5.1 CPUs": [f"run_dir={tmp_path}/a", "pools.trainer.replicas=4", "pools.trainer.cpus=1"],
        "the pools need at least 1 GPUs": [f"run_dir={tmp_path}/b", "pools.teacher.gpus=1"],
        f"run_dir: '{relative}' must be an absolute path": [f"run_dir={relative}"],
    }
    refused = {
        text: _renio(["train", "--config", "configs/demo.yaml", *QUICK, *keys], running_cluster) for text, keys in cases.items()
    }
    for text, process in refused.items():
        told = process.communicate(timeout=200)[1].decode()
        assert (process.returncode, text in told) == (2, True), told
    assert list(tmp_path.iterdir()) == []
    assert not (ROOT / relative).exists()


def test_a_killed_driver_leaves_nothing_behind(running_cluster: dict[str, str], tmp_path: Path) -> None:
    """SIGKILL in mid-run, with an engine in a process of its own: everything it started is gone within a minute."""
    folder = tmp_path / "run"
    overrides = [f"run_dir={folder}", "steps=5000", "generator.separate_process=true", *QUICK, *OTHER_WAYS]
    driver = _renio(["train", "--config", "configs/demo.yaml", *overrides], running_cluster)
    assert wait_until(lambda: driver.poll() is not None or len(lines_of(folder / "metrics.jsonl")) >= 2, 240)
    assert driver.poll() is None, driver.communicate()[1].decode()
    _has_run_in_the_other_ways(folder)
    mine = [p for p in psutil.process_iter() if _is_of_the_run(p, running_cluster)]
    assert sum("VLLM" in _title(p) or "EngineCore" in _title(p) for p in mine) >= 1, [_title(p) for p in mine]
    second = _renio(["train", "--config", "configs/demo.yaml", f"run_dir={tmp_path / 'second'}", *QUICK], running_cluster)
    assert b"a run 'demo' is live on this cluster" in second.communicate(timeout=200)[1]
    assert second.returncode == 2
    driver.kill()
    driver.communicate()
    gone = wait_until(lambda: not any(_alive(p) for p in mine), 60)
    assert gone, [_title(p) for p in mine if _alive(p)]


def _has_run_in_the_other_ways(folder: Path) -> None:
    lines = lines_of(folder / "metrics.jsonl")
    assert [line["step"] for line in lines[:2]] == [1, 2]
    assert all(line["payload/bytes"] == 0 for line in lines)
    written = lines_of(folder / "samples/step_000001.jsonl")
    assert [w["row"] for w in written[::2]] == [w["row"] for w in written[1::2]]
    assert any(a["token_ids"] != b["token_ids"] for a, b in zip(written[::2], written[1::2], strict=True))


def _renio(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "renio_pipeline", *arguments],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )


def _is_of_the_run(process: psutil.Process, cluster: dict[str, str]) -> bool:
    """Actors and vLLM's own processes, by the token of their cluster: others may be at work here. Idle Ray workers of a running
    cluster are the cluster's."""
    title = _title(process)
    try:
        ours = process.environ().get("RAY_AUTH_TOKEN") == cluster["RAY_AUTH_TOKEN"]
    except psutil.Error:
        return False
    return ours and any(
        part in title for part in ("Generator", "Teacher", "TrainerRank", "Weigher", "Control", "VLLM", "EngineCore")
    )


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
