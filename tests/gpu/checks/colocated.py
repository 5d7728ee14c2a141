"""A whole run of the command line, generator and trainer on the same GPU, in which the generator is killed once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.gpu import models
from tests.gpu.check import Figure, Figures
from tests.gpu.runner import ROOT
from tests.gpu.settings import Settings

STEPS = 5
SECONDS = 520.0
GENERATOR = "ray::Generator"  # what Ray calls the actor's process begins with its class


def colocated(settings: Settings) -> Figures:
    models.environment(settings)
    with tempfile.TemporaryDirectory(prefix="renio-gpu-check-") as temporary:
        folder, started = Path(temporary, "run"), time.perf_counter()
        command = [sys.executable, "-m", "renio_pipeline", "train", "--config", "configs/demo.yaml", f"run_dir={folder}"]
        run = subprocess.Popen([*command, *_overrides(settings)], cwd=ROOT)
        try:
            _kill_generator(run, folder)
            code = run.wait(max(1.0, SECONDS - (time.perf_counter() - started)))
        finally:
            if run.poll() is None:
                run.terminate()  # it ends its Ray
                run.wait(60)
        assert code == 0, f"the run ended with code {code}"
        yield from _found(settings, folder)
        yield Figure("time", time.perf_counter() - started, "s")


def _overrides(settings: Settings) -> list[str]:
    keys = [
        "placement=colocated",
        f"steps={STEPS}",
        "batch_size=64",
        "data.problems=512",
        "evaluate.problems=0",
        "name=gpu-check-colocated",
    ]
    if not settings.on_gpu:
        return [*keys, "sync.backend=host"]
    return [
        *keys,
        "sync.backend=ipc",
        "generator.dtype=bfloat16",
        "teacher.dtype=bfloat16",
        "trainer.dtype=bfloat16",
        "pools.generator.gpus=0.5",
        "pools.trainer.gpus=0.5",
        "pools.teacher.gpus=0.5",
        # Not vLLM: two of its engines that load at once on one GPU mistake each other's memory for their own.
        "teacher.type=torch",
        "trainer.offload=optimizer",
        f"generator.engine.gpu_memory_utilization={settings.gpu_memory_utilization}",
    ]


def _kill_generator(run: subprocess.Popen[bytes], folder: Path) -> None:
    """As soon as a step is done."""
    import psutil

    deadline = time.monotonic() + SECONDS
    while not _lines(folder):
        assert run.poll() is None, f"the run ended with code {run.returncode} before its first step"
        assert time.monotonic() < deadline, f"no step was done within {SECONDS:g} s"
        time.sleep(0.05)
    for process in psutil.Process(run.pid).children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if title.startswith(GENERATOR):
            process.kill()
            return
    raise AssertionError("the run has no generator's process that could be killed")


def _found(settings: Settings, folder: Path) -> Figures:
    from renio_pipeline.ledger import history, prove_exactly_once

    prove_exactly_once(folder)
    lines = _lines(folder)
    yield Figure("steps", len(lines), least=STEPS, most=STEPS)
    trained = [i for ranks in history(folder).values() for ids in ranks.values() for i in ids]
    yield Figure("samples that were trained on, each once", len(trained), least=STEPS * 64, most=STEPS * 64)
    yield Figure("generators started again", lines[-1]["pool/generator/restarts"], least=1)
    gap = max(line["mismatch/logprob_abs_mean"] for line in lines)
    yield Figure("generator's and trainer's log-probabilities, largest mean gap of a step", gap, "nats", most=settings.gap)
    yield Figure("step, median", sorted(line["time/step"] for line in lines)[STEPS // 2], "s")
    assert not os.path.exists(folder / "samples/rejected.jsonl"), "samples were quarantined"


def _lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
