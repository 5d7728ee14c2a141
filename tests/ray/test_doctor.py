"""``renio doctor`` on a cluster of several real nodes: a healthy one, then with two nodes that have a fault each."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.ray.running_cluster import RunningCluster, joined_node, started_cluster
from tests.ray.runs import ROOT

HIDE = [
    "unshare",
    "--mount",
    *([] if os.getuid() == 0 else ["--user", "--map-root-user"]),
    "sh",
    "-c",
    'mount -t tmpfs none "$0" && exec "$@"',
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RunningCluster]:
    """Two equal nodes, ``head`` and ``second``."""
    with started_cluster() as found, joined_node(found, "second"):
        yield found


def renio(cluster: RunningCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "renio_pipeline", *arguments]
    return subprocess.run(command, cwd=ROOT, env=cluster.environment, capture_output=True, text=True, timeout=200)


def doctor(cluster: RunningCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return renio(cluster, "doctor", *arguments)


def faults(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [finding for finding in json.loads(done.stdout)["findings"] if finding["level"] == "fault"]


def test_a_healthy_cluster_is_exit_code_0_and_its_nodes_reach_each_other(cluster: RunningCluster, tmp_path: Path) -> None:
    done = doctor(cluster, "--json", "--config", "configs/demo.yaml", f"run_dir={tmp_path / 'runs/new'}")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    found = json.loads(done.stdout)
    assert [node["name"] for node in found["nodes"]] == ["head", "second"]
    assert [reach["target"] for node in found["nodes"] for reach in node["facts"]["reaches"]] == ["second", "head"]
    (pair,) = found["collectives"]
    assert (pair["backend"], pair["nodes"], pair["correct"]) == ("gloo", ["head", "second"], True)
    assert pair["bandwidth"] > 1e6
    assert not any(tmp_path.iterdir())


def test_a_node_that_does_not_answer_is_a_fault_and_delays_the_others_no_longer_than_it_may(cluster: RunningCluster) -> None:
    with joined_node(cluster, "silent") as node:
        (raylet,) = [each for each in psutil.Process(node.pid).children(recursive=True) if each.name() == "raylet"]
        raylet.suspend()
        try:
            done = doctor(cluster, "--json", "--timeout", "30")
        finally:
            raylet.resume()
    assert done.returncode == 2, done.stdout + done.stderr
    (fault,) = faults(done)
    assert (fault["node"], fault["check"]) == ("silent", "answer")
    # Ray itself may have given the node up by then, after some fifteen seconds.
    assert re.search(r"no answer within 30 s|Actor\w*Error", fault["seen"]), fault
    assert [node["name"] for node in json.loads(done.stdout)["nodes"] if node["facts"]] == ["head", "second"]


def test_a_node_with_another_version_and_one_without_the_folder_are_named(cluster: RunningCluster, tmp_path: Path) -> None:
    shared, fake = tmp_path / "shared", tmp_path / "packages"
    shared.mkdir()
    metadata = fake / "deepspeed-0.18.0.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: deepspeed\nVersion: 0.18.0\n")
    with ExitStack() as nodes:
        nodes.enter_context(joined_node(cluster, "old", {"PYTHONPATH": str(fake)}))
        nodes.enter_context(joined_node(cluster, "blind", wrapper=[*HIDE, str(shared)]))
        done = doctor(cluster, "--run-dir", str(shared / "run"))
        told = done.stdout
        small = [f"pools.{pool}.cpus=0.25" for pool in ("generator", "teacher", "trainer")]
        run = renio(cluster, "check", "--config", "configs/demo.yaml", f"run_dir={tmp_path / 'run'}", *small)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("error: the nodes that pools may be placed on have different versions; install the same on")
    assert run.stderr.endswith("\n  old has deepspeed 0.18.0, but 0.19.8 on head, blind, second\n")
    assert done.returncode == 2, told + done.stderr
    rows = [line.split(maxsplit=3) for line in told.partition("\n\n")[0].splitlines()[1:]]
    assert {(node, check) for node, check, level, _ in rows if level == "fault"} == {("old", "versions"), ("blind", "run_dir")}
    assert "deepspeed 0.18.0; required is <0.20,>=0.19.8" in told
    assert "deepspeed 0.18.0, but 0.19.8 on head, blind, second" in told
    assert f"{shared / 'run'}: the driver's files are not visible (No such file or directory)" in told
    assert "  blind: run_dir: choose a run_dir on a file system that is mounted, and writable, on every node" in told
    assert "3 faults on blind, old" in told
    assert not any(shared.iterdir())
