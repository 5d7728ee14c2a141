"""Drivers on a cluster that runs already: what it lets in, what is refused there, and what is left when a driver dies."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.ray.runs import ROOT, lines_of

BIN = Path(sys.executable).parent
QUICK = ["batch_size=8", "evaluate.problems=8", "data.problems=64"]
# What no other whole run covers: bf16, the sampled-token loss, the trainer's log-probabilities, two samples a prompt.
OTHER_WAYS = [
    "generator.dtype=bfloat16", "teacher.dtype=bfloat16", "trainer.dtype=bfloat16", "objective={type: sampled}",
    "student_logprobs=trainer", "samples_per_prompt=2",
]  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: object, seconds: float) -> bool:
    """Whether ``condition()`` came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.5)
    return False


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[dict[str, str]]:
    """A cluster started with ``ray start --head``, asking for a token; the environment to reach it."""
    folder = Path("/tmp") / f"renio-{secrets.token_hex(4)}"  # short: Ray's socket paths have a limit
    gcs, dashboard = free_port(), free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_ADDRESS": f"127.0.0.1:{gcs}", "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }  # fmt: skip
    # Ports that Ray fixes unless told otherwise: the tests' own cluster on this machine has them already.
    ports = [f"--{name}={free_port()}" for name in ("dashboard-agent-listen-port", "ray-client-server-port")]
    head = subprocess.Popen(
        [BIN / "ray", "start", "--head", "--block", "--num-cpus=2", f"--port={gcs}", f"--dashboard-port={dashboard}",
         f"--temp-dir={folder}", "--disable-usage-stats", "--node-ip-address=127.0.0.1", *ports],
        env={k: v for k, v in environment.items() if k not in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        # The job server answers before the agent that starts jobs is there: ready is what has taken a job.
        probe = [BIN / "ray", "job", "submit", "--no-wait", "--", "true"]
        up = wait_until(lambda: subprocess.run(probe, env=environment, capture_output=True).returncode == 0, 180)
        assert up, "the cluster did not take a job"
        yield environment
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_cluster_without_the_token_is_closed(running_cluster: dict[str, str]) -> None:
    without = {k: v for k, v in running_cluster.items() if k != "RAY_AUTH_TOKEN"} | {"RAY_AUTH_TOKEN": "0" * 64}
    assert subprocess.run([BIN / "ray", "job", "list"], env=without, capture_output=True).returncode != 0


def test_what_could_never_run_there_is_refused_before_any_engine(running_cluster: dict[str, str], tmp_path: Path) -> None:
    here, relative = f"run_dir={tmp_path / 'run'}", "runs/relative"
    cases = {
        "the pools need at least 5.1 CPUs": [here, "pools.trainer.replicas=4", "pools.trainer.cpus=1"],
        "the pools need at least 1 GPUs": [here, "pools.teacher.gpus=1"],
        f"run_dir: '{relative}' must be an absolute path": [f"run_dir={relative}"],
    }
    refused = {
        text: _renio(["train", "--config", "configs/demo.yaml", *QUICK, *keys], running_cluster) for text, keys in cases.items()
    }
    for text, process in refused.items():
        told = process.communicate(timeout=200)[1].decode()
        assert (process.returncode, text in told) == (2, True), told
    assert not (tmp_path / "run").exists()
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
        [sys.executable, "-m", "renio_pipeline", *arguments], cwd=ROOT, env=environment, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


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
