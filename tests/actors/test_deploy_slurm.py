"""The Slurm script, run with stand-ins for srun, scontrol, ray and renio that write down what they were asked."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from actors.cluster.checks import check_cluster
from actors.cluster.node_labels import check_nodes
from renio_pipeline.config import load
from tests.deploy.manifests import ROOT

SCRIPT = ROOT / "deploy" / "slurm" / "renio.sbatch"
STAND_INS = {
    "scontrol": 'echo "scontrol $*" >> "$LOG"; [ "$1" = show ] && printf "%s\\n" ${NODES:-a b c}; true',
    "srun": 'echo "srun $*" >> "$LOG"; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "ray": 'echo "ray $RAY_AUTH_MODE ${#RAY_AUTH_TOKEN} $*" >> "$LOG"; exec sleep 60',
    "python": 'if [[ $1 == - ]]; then cat > /dev/null; until (( $(grep -c "^ray " "$LOG") >= $3 )); do sleep 0.02; done; '
    'echo "wait $2 $3" >> "$LOG"; else exec "$PYTHON" "$@"; fi',
    "renio": 'echo "renio $RAY_ADDRESS $*" >> "$LOG"; trap "sleep 0.3; exit 143" TERM; [ -n "${CODE:-}" ] && exit "$CODE"; '
    "while :; do sleep 0.05; done",
}  # fmt: skip


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a job on the nodes a, b and c. Nothing that was started in it outlives the test."""
    for name, body in STAND_INS.items():
        path = tmp_path / name
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLURM_"))}
    yield kept | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "PYTHON": sys.executable,
        "SLURM_JOB_ID": "12345",
        "SLURM_JOB_NODELIST": "[a-c]",
    }
    while STARTED:
        job = STARTED.pop()
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.communicate()


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    STARTED.append(
        subprocess.Popen(
            ["bash", SCRIPT, *arguments],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    )
    return STARTED[-1]


def log(environment: dict[str, str]) -> list[str]:
    path = Path(environment["LOG"])
    return path.read_text().splitlines() if path.exists() else []


def seen(environment: dict[str, str], start_of_line: str) -> list[str]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if found := [line for line in log(environment) if line.startswith(start_of_line)]:
            return found
        time.sleep(0.02)
    raise AssertionError(f"no line {start_of_line!r} in {log(environment)}")


def test_each_node_gets_the_label_of_its_pool_and_the_same_token_and_the_driver_waits_for_all(cluster: dict[str, str]) -> None:
    job = start(cluster | {"CODE": "0", "POOLS": "generator teacher trainer"}, "--config", "x.yaml", "steps=3")
    assert job.wait(30) == 0
    address = "a:22345"
    starts = sorted(line for line in log(cluster) if line.startswith("ray "))
    assert starts == [
        f"ray token 64 start --block --address={address} --labels=pool=teacher",
        f"ray token 64 start --block --address={address} --labels=pool=trainer",
        "ray token 64 start --head --block --port=22345 --labels=pool=generator",
    ]
    steps = [line for line in log(cluster) if line.startswith("srun ")]
    assert sorted(line.split("--nodelist=")[1][0] for line in steps) == ["a", "b", "c"]
    assert all("--overlap" in line for line in steps)
    (waited,), (driver,) = seen(cluster, "wait"), seen(cluster, "renio")
    assert waited == f"wait {address} 3"
    assert driver == f"renio {address} train --resume --takeover --config x.yaml steps=3"
    assert log(cluster).index(waited) < log(cluster).index(driver)
    assert not [line for line in log(cluster) if "requeue" in line]


def test_the_drivers_exit_code_is_the_jobs(cluster: dict[str, str]) -> None:
    assert start(cluster | {"CODE": "2"}).wait(30) == 2
    assert not [line for line in log(cluster) if "requeue" in line]


def test_a_job_of_one_node_ends_too(cluster: dict[str, str]) -> None:
    assert start(cluster | {"CODE": "0", "NODES": "a", "POOLS": "all"}).wait(30) == 0
    assert [line.split()[-1] for line in log(cluster) if line.startswith("ray ")] == ["--labels=pool=all"]


def test_before_the_time_limit_the_driver_ends_first_and_the_job_queues_again(cluster: dict[str, str]) -> None:
    job = start(cluster)
    seen(cluster, "renio")
    time.sleep(0.2)  # until its trap is set
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 143
    assert log(cluster)[-1] == "scontrol requeue 12345"


def test_a_driver_that_another_ended_is_not_queued_again(cluster: dict[str, str]) -> None:
    assert start(cluster | {"CODE": "143"}).wait(30) == 143
    assert not [line for line in log(cluster) if "requeue" in line]


def test_pools_that_do_not_name_every_node_are_refused_before_anything_starts(cluster: dict[str, str]) -> None:
    job = start(cluster | {"POOLS": "generator trainer"})
    _, errors = job.communicate(timeout=30)
    assert job.returncode == 2
    assert errors == "POOLS names 2 pools (generator trainer), and the job has 3 nodes; give a word for each node\n"
    assert not [line for line in log(cluster) if line.startswith(("srun", "ray"))]


def test_there_is_more_time_before_the_limit_than_a_checkpoint_gets() -> None:
    (line,) = [line for line in SCRIPT.read_text().splitlines() if "--signal" in line]
    assert int(line.rsplit("@", 1)[1]) > load(ROOT / "configs/gpu.yaml").checkpoint.grace_seconds


def test_shellcheck_finds_nothing() -> None:
    tool = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip("shellcheck is not installed, so it did not read the script")
    done = subprocess.run([tool, str(SCRIPT)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_three_nodes_of_eight_gpus_hold_the_example_with_its_labels() -> None:
    config = load([ROOT / "configs/gpu.yaml", ROOT / "deploy/labels.yaml"])
    nodes = [
        {"Alive": True, "Labels": {"pool": pool}, "Resources": {"CPU": 64, "GPU": 8}}
        for pool in ("generator", "teacher", "trainer")
    ]
    check_cluster(config, {"CPU": 192, "GPU": 24})
    check_nodes(config, nodes)
