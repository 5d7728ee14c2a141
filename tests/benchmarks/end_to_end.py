"""Whole steps of the pipeline beside whole steps of the baseline, round by round, with whom each CPU-second went to.

A round is a process: the pipeline's with a Ray of its own, or the baseline's. Rounds alternate, so that what disturbs the
machine disturbs both. Each leaves a file, so that a measurement may be made in pieces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from renio_pipeline.metrics.sink import read_jsonl
from tests.benchmarks.processes import snapshot
from tests.benchmarks.shapes import ROOT, config_of

KINDS: dict[str, dict[str, Any]] = {"baseline": {}, "pipeline": {}, "ahead": {"max_staleness": 1}}
WARM_UP = {"tiny": 2, "tail": 1}  # steps of a round left out: first batches allocate
Round = dict[str, Any]


def measure(shape: str, kind: str, steps: int, folder: Path, samples: Path) -> Round:
    """One round of ``steps`` steps beside the warm-up.

    Args:
        folder: for the shape's models.
        samples: where to leave the first step's samples of the pipeline, which the floors are measured on.
    """
    file, config = config_of(shape, folder, steps + WARM_UP[shape], **KINDS[kind])
    threads = int(config.pools.generator.env.get("OMP_NUM_THREADS", 1))
    with tempfile.TemporaryDirectory() as out:
        run = baseline if kind == "baseline" else pipeline
        found = run(file, Path(out), threads)
        if kind == "pipeline":
            shutil.copy(Path(out, "run/samples/step_000001.jsonl"), samples)
    found["steps"] = found["steps"][WARM_UP[shape] :]
    return {"shape": shape, "kind": kind, **found}


def baseline(file: Path, out: Path, threads: int) -> Round:
    began = time.perf_counter()
    command = [sys.executable, "-m", "tests.benchmarks.sequential", str(file), str(out / "steps.jsonl")]
    subprocess.run(command, cwd=ROOT, check=True, env=environment())
    steps = read_jsonl(out / "steps.jsonl")
    start = time.perf_counter() - began - sum(s["seconds"] for s in steps)
    return {"start": start, "steps": steps, "memory": {"baseline": max(s["peak_memory"] for s in steps)}}


def pipeline(file: Path, out: Path, threads: int) -> Round:
    """A step's CPU-seconds are those between two lines of the run's metrics."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "renio_pipeline", "train", "--config", str(file), f"run_dir={out / 'run'}"]
    log = (out / "log").open("w")
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=log, stderr=subprocess.STDOUT)
    metrics = out / "run/metrics.jsonl"
    marks, size, first = [], 0, 0.0
    while process.poll() is None:
        now = metrics.stat().st_size if metrics.exists() else 0
        if now != size:
            marks.append(snapshot(process.pid, threads))
            first = first or time.perf_counter() - began
            size = now
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"the pipeline failed:\n{(out / 'log').read_text()[-4000:]}")
    lines = read_jsonl(metrics)
    if len(marks) != len(lines):
        raise RuntimeError(f"{len(marks)} of {len(lines)} steps were seen as they ended: the machine is too busy to measure")
    steps = [_step(lines[0], None)]
    steps += [_step(line, b.since(a)) for line, a, b in zip(lines[1:], marks, marks[1:], strict=False)]
    return {"start": first - lines[0]["time/step"], "steps": steps, "memory": marks[-1].memory}


def _step(line: dict[str, float], used: Any) -> dict[str, Any]:
    kept = {name: line[name] for name in line if name.startswith(("time/", "tokens/", "idle/", "sync/", "staleness/"))}
    spent = {} if used is None else {"cpu": sum(used.cpu.values()), "by_role": used.cpu, "overhead": used.overhead}
    return {
        "samples": round(line["tokens/generated"] / line["response/tokens"]),
        "tokens": line["tokens/generated"],
        "seconds": line["time/step"],
        **spent,
        "metrics": kept,
    }


def environment() -> dict[str, str]:
    """The machine's own: the pipeline gives its engines what they need, and the baseline has what a user would have."""
    own = {"PYTHONPATH": str(ROOT)}
    return {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | own
