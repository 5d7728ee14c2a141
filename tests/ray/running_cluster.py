"""A Ray cluster of its own as administrators start one: by ``ray start``, asking for a token."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ray.ports import free_port

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class RunningCluster:
    environment: dict[str, str]  # what it takes to reach it, from here or by its job server
    folder: Path  # its temporary one

    @property
    def address(self) -> str:
        return self.environment["RAY_ADDRESS"]


def wait_until(condition: Callable[[], object], seconds: float, every: float = 0.5) -> bool:
    """Whether ``condition()`` came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(every)
    return False


@contextmanager
def started_cluster(python: Path = Path(sys.executable)) -> Iterator[RunningCluster]:
    """One node with two CPUs, whose workers run ``python``; it takes jobs when this yields.

    Ray chooses some of its ports before it listens on them, so that another process may come first: then it starts once more.
    """
    for _ in range(3):
        cluster, head = _begin(python)
        wait_until(lambda now=head, env=cluster.environment: now.poll() is not None or _takes_a_job(env), 140)  # type: ignore[misc]
        if head.poll() is None and _takes_a_job(cluster.environment):
            break
        _end(cluster, head)
    else:
        raise AssertionError("the cluster did not take a job")
    try:
        yield cluster
    finally:
        _end(cluster, head)


def _begin(python: Path) -> tuple[RunningCluster, subprocess.Popen[bytes]]:
    folder = Path("/tmp") / f"renio-{secrets.token_hex(4)}"  # short: Ray's socket paths have a limit
    gcs, dashboard = free_port(), free_port()
    # What makes this checkout importable here is nothing that a node would have.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") and k != "PYTHONPATH"} | {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PATH": f"{python.parent}:{BIN}:{os.environ['PATH']}",
        "RAY_ADDRESS": f"127.0.0.1:{gcs}", "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }  # fmt: skip
    # Ports that Ray fixes unless told otherwise: the tests' own cluster on this machine has them already.
    ports = [f"--{name}={free_port()}" for name in ("dashboard-agent-listen-port", "ray-client-server-port")]
    head = subprocess.Popen(
        [
            python,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--head",
            "--block",
            "--num-cpus=2",
            f"--port={gcs}",
            f"--dashboard-port={dashboard}",
            f"--temp-dir={folder}",
            "--disable-usage-stats",
            "--node-ip-address=127.0.0.1",
            "--node-name=head",
            *ports,
        ],
        env={k: v for k, v in environment.items() if k not in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return RunningCluster(environment, folder), head


def _end(cluster: RunningCluster, head: subprocess.Popen[bytes]) -> None:
    head.send_signal(signal.SIGTERM)
    head.wait(60)
    shutil.rmtree(cluster.folder, ignore_errors=True)


@contextmanager
def joined_node(
    cluster: RunningCluster, name: str, environment: Mapping[str, str] | None = None, wrapper: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A further node on this machine with one CPU, in an environment of its own, started by ``wrapper`` and what follows it.

    Ray chooses free ports before it listens on them, so that another process may come first: then it starts once more.
    """

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *wrapper,
                sys.executable,
                "-m",
                "ray.scripts.scripts",
                "start",
                "--block",
                f"--address={cluster.address}",
                f"--node-name={name}",
                "--num-cpus=1",
                "--node-ip-address=127.0.0.1",
                f"--object-store-memory={100 * 2**20}",
                f"--dashboard-agent-listen-port={free_port()}",
            ],
            env=cluster.environment | (environment or {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def joined() -> bool:
        return name in _names_of_nodes(cluster.environment)

    node = start()
    try:
        for left in (2, 1, 0):
            wait_until(lambda now=node: joined() or now.poll() is not None, 120)  # type: ignore[misc]
            if node.poll() is None or not left:
                break
            node = start()
        assert joined(), f"node {name} did not join"
        yield node
    finally:
        node.send_signal(signal.SIGTERM)
        node.wait(60)


def _names_of_nodes(environment: Mapping[str, str]) -> list[str]:
    """Those that are alive, as the dashboard knows them."""
    headers = {"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"}
    request = urllib.request.Request(f"{environment['RAY_API_SERVER_ADDRESS']}/api/v0/nodes", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            nodes = json.load(answer)["data"]["result"]["result"]
    except OSError:  # the dashboard is not there yet
        return []
    return [node["node_name"] for node in nodes if node["state"] == "ALIVE"]


def _takes_a_job(environment: dict[str, str]) -> bool:
    """The job server answers before the agent that starts jobs is there: ready is what has taken a job."""
    request = urllib.request.Request(
        f"{environment['RAY_API_SERVER_ADDRESS']}/api/jobs/",
        json.dumps({"entrypoint": "true"}).encode(),
        {"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
