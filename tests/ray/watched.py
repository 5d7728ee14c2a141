"""One run as its users start and watch it, for all tests that look at it afterwards.

Somebody who has only Ray's client submits it to a cluster that asks for a token and has all but the project. Prometheus scrapes
the run, and Ray. After a few steps it is told to stop.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
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

STEPS = 12  # at least; an evaluation is among them
OVERRIDES = [
    "batch_size=16", "data.problems=64", "steps=100", "max_staleness=1", "in_flight=keep", "metrics_port=0",
    "evaluate.problems=16", "trace.steps=100", *runs.SMALL, *(f"pools.{pool}.replicas=2" for pool in runs.POOLS),
]  # fmt: skip
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
    told: float = 0.0  # when it was told to stop
    ended: float = 0.0
    pages: dict[str, str] = field(default_factory=dict)  # the latest before, by path
    status: dict[str, Any] = field(default_factory=dict)  # what `renio status` said before
    printed: str = ""  # by the job
    environments: dict[str, str] = field(default_factory=dict)  # of the workers: which one each was in, by its title


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
            [found.client / "ray", "job", "submit", "--working-dir", ".", "--runtime-env", "deploy/jobs/runtime_env.yaml", "--",
             "bash", "-c", entrypoint, "renio", f"run_dir={found.folder}", f"metrics_discovery={found.discovery}", *OVERRIDES],
            cwd=runs.ROOT, env=outside, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            _look(found, job, steps)
            _stop(found, cluster)
            code = job.wait(120)
            found.ended = time.time()
        finally:
            job.kill()
            job.wait()
    found.printed = path.read_text()
    assert code == 0, found.printed


def _look(found: Watched, job: subprocess.Popen[bytes], steps: int) -> None:
    """Until it has done its steps."""

    def done() -> bool:
        assert job.poll() is None, (found.folder.parent / "job.log").read_text()
        return len(runs.lines_of(found.folder / "metrics.jsonl")) >= steps

    assert wait_until(done, 400), "the run did not get going"
    _scrape(found)
    on_path = f"{found.folder.parent / 'node/bin'}:"
    for process in psutil.process_iter(["cmdline"]):
        title = " ".join(process.info["cmdline"] or ())
        if title.startswith(("ray::Generator", "ray::Teacher", "ray::TrainerRank", "ray::Weigher")):
            around = process.environ()
            if on_path in around["PATH"]:
                found.environments[f"{title} {process.pid}"] = around.get("VIRTUAL_ENV", "")


def _scrape(found: Watched) -> None:
    targets = [json.loads(path.read_text()) for path in found.discovery.glob("*.json")]
    for group in targets[0] if targets else []:
        (address,), path = group["targets"], group["labels"]["__metrics_path__"]
        with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as page:
            found.pages[path] = page.read().decode()


def _stop(found: Watched, cluster: RunningCluster) -> None:
    """As ``renio status --json`` and ``renio stop`` do it, in one process."""
    line = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.line", "demo", cluster.address], cwd=runs.ROOT, env=cluster.environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    answers, _ = line.communicate("".join(json.dumps([verb, {}, 60]) + "\n" for verb in ("status", "stop")), timeout=120)
    found.status = json.loads(answers.splitlines()[0])
    found.told = time.time()
