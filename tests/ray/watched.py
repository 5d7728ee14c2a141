"""One run as its users start and watch it, for all tests that look at it afterwards.

Somebody who has only Ray's client submits it to a cluster that asks for a token and has all but the project. Prometheus scrapes
the run, and Ray. It is looked at while it trains.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.ray import environments, runs
from tests.ray.prometheus_server import Prometheus, prometheus
from tests.ray.running_cluster import RunningCluster, started_cluster, wait_until

STEPS = 32
OVERRIDES = [
    "batch_size=16",
    "data.problems=64",
    "max_staleness=1",
    "in_flight=keep",
    "metrics_port=0",
    "evaluate.problems=16",
    "trace.steps=100",
    *runs.SMALL,
    *(f"pools.{pool}.replicas=2" for pool in runs.POOLS),
]
WHERE = "from importlib.util import find_spec as f; print('code', f('renio_pipeline').origin, 'packages', f('vllm').origin)"
Series = dict[tuple[str, str, str], float]  # by name, pool and replica


@dataclass
class Watched:
    folder: Path  # the run directory
    discovery: Path
    client: Path  # the `bin` of who submitted it
    cluster: Path  # the folder of the cluster, which is gone
    server: Prometheus | None  # None where there is none to be had
    started: float = field(default_factory=time.time)
    looked: float = 0.0  # when it was looked at
    ended: float = 0.0
    pages: dict[str, str] = field(default_factory=dict)  # then, by path
    status: dict[str, Any] = field(default_factory=dict)  # what `renio status` said then
    printed: str = ""  # by the job
    environments: dict[str, str] = field(default_factory=dict)  # in which each worker ran, by its title
    loaded: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # torch and vLLM, by what a process is


def series(text: str) -> Series:
    found: Series = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for s in family.samples:
            found[s.name, s.labels.get("pool", ""), s.labels.get("replica", "")] += s.value
    return found


@contextmanager
def watch(folder: Path, client: Path, steps: int = STEPS) -> Iterator[Watched]:
    """``client``: where the environment of Ray's client is kept. The run has ended when this yields; Prometheus has not."""
    with ExitStack() as stack, ThreadPoolExecutor() as beside:
        submitter = beside.submit(environments.ray_client, client)
        with started_cluster(environments.node(folder / "node")) as cluster:
            (folder / "targets").mkdir()
            targets = {"renio": folder / "targets/*.json", "ray": cluster.folder / "prom_metrics_service_discovery.json"}
            server = None
            if shutil.which("prometheus"):
                config = runs.ROOT / "deploy/prometheus/prometheus.yml"
                server = stack.enter_context(prometheus(config, folder / "prometheus", targets))
            found = Watched(folder / "run", folder / "targets", submitter.result(), cluster.folder, server)
            _run(found, cluster, steps)
        yield found


def _run(found: Watched, cluster: RunningCluster, steps: int) -> None:
    outside = {k: v for k, v in cluster.environment.items() if k != "RAY_ADDRESS"} | {"PATH": f"{found.client}:/usr/bin:/bin"}
    entrypoint = f'command -v renio; python -c "{WHERE}"; exec renio train --config configs/demo.yaml "$@"'
    path = found.folder.parent / "job.log"
    with path.open("w") as log:
        job = subprocess.Popen(
            [
                found.client / "ray",
                "job",
                "submit",
                "--working-dir",
                ".",
                "--runtime-env",
                "deploy/jobs/runtime_env.yaml",
                "--",
                "bash",
                "-c",
                entrypoint,
                "renio",
                f"run_dir={found.folder}",
                f"metrics_discovery={found.discovery}",
                f"steps={steps}",
                *OVERRIDES,
            ],
            cwd=runs.ROOT,
            env=outside,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def begun() -> bool:
        assert job.poll() is None, path.read_text()
        return (found.folder / "config.yaml").exists()

    def far_enough() -> bool:
        return begun() and len(runs.lines_of(found.folder / "metrics.jsonl")) >= steps * 5 // 8

    try:
        assert wait_until(begun, 200), path.read_text()
        with _line(cluster) as status:
            assert wait_until(far_enough, 400, 0.1), path.read_text()
            found.looked, found.status = time.time(), status()
            _look(found)
        code = job.wait(200)
        found.ended = time.time()
    finally:
        job.kill()
        job.wait()
    found.printed = path.read_text()
    assert code == 0, found.printed


@contextmanager
def _line(cluster: RunningCluster) -> Iterator[Callable[[], dict[str, Any]]]:
    """What asks as ``renio status --json`` does, at once: it has joined the cluster before."""
    line = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.line", "demo", cluster.address],
        cwd=runs.ROOT,
        env=cluster.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def status() -> dict[str, Any]:
        assert line.stdin is not None
        assert line.stdout is not None
        line.stdin.write('["status", {}, 60]\n')
        line.stdin.flush()
        found: dict[str, Any] = json.loads(line.stdout.readline())
        return found

    try:
        yield status
    finally:
        line.communicate()  # closes its input, which ends it


def _look(found: Watched) -> None:
    _scrape(found)
    on_path = f"{found.folder.parent / 'node/bin'}:"
    for process in psutil.process_iter(["cmdline"]):
        title = " ".join(process.info["cmdline"] or ())
        actor = re.match(r"ray::(Generator|Teacher|TrainerRank|Weigher|Control)\b", title)
        driver = f"run_dir={found.folder} " in title and "/bin/renio train" in title
        if (actor or driver) and on_path in process.environ()["PATH"]:
            mapped = Path(f"/proc/{process.pid}/maps").read_text()
            found.loaded[actor[1] if actor else "driver"] |= set(re.findall(r"/site-packages/(torch|vllm)/", mapped))
            if actor and actor[1] != "Control":
                found.environments[f"{title} {process.pid}"] = process.environ().get("VIRTUAL_ENV", "")


def _scrape(found: Watched) -> None:
    targets = [json.loads(path.read_text()) for path in found.discovery.glob("*.json")]
    for group in targets[0] if targets else []:
        (address,), path = group["targets"], group["labels"]["__metrics_path__"]
        with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as page:
            found.pages[path] = page.read().decode()
