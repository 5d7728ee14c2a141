"""Whole runs of the command line, in processes of their own, and what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from renio_pipeline.tasks.arithmetic import Arithmetic
from tests.ray import warm

ROOT = Path(__file__).parents[2]
# What a repetition must give again: everything but times, rates and the memory of a process.
VARIES = ("time/", "idle/", "memory/", "sync/publish", "sync/receive")

POOLS = ("generator", "teacher", "trainer")
SMALL = [f"pools.{pool}.cpus=0.25" for pool in POOLS]
TWO_OF_EACH = [
    "batch_size=16",
    "deterministic=true",
    "trainer.zero_stage=2",
    *(f"pools.{pool}.replicas=2" for pool in POOLS),
    *SMALL,
]
STEPS = 7
WHOLE = [
    *TWO_OF_EACH,
    f"steps={STEPS}",
    "data.off_policy.share=0.25",
    "weighting.normalization=ema",
    "evaluate.problems=16",
    "evaluate.every=3",
    "checkpoint.every=2",
]


def mixture(folder: Path) -> str:
    """What a whole run reads: two files in verl's layout, whose rows have different tasks, as an override of the configuration.

    A sum is right by its value; in a text every word must be the one that the row has.
    """
    rows = Arithmetic().rows("train", 64)
    for name, some in (("sums", rows[:48]), ("words", rows[48:]), ("held-out", Arithmetic().rows("held_out", 16))):
        records = [
            {
                "data_source": name,
                "prompt": [{"role": "user", "content": row.problem}],
                "ability": "arithmetic",
                "reward_model": {"style": "rule", "ground_truth": row.solution if name == "words" else row.answer},
                "extra_info": {"index": i, "split": "train", "answer": row.solution},
            }
            for i, row in enumerate(some)
        ]
        pq.write_table(pa.Table.from_pylist(records), folder / f"{name}.parquet")
    sums = f"{{path: {folder}/sums.parquet, preset: verl, weight: 3, held_out_path: {folder}/held-out.parquet}}"
    return f"data.sources=[{sums}, {{path: {folder}/words.parquet, preset: verl, task: plain}}]"


def start(*arguments: str, forked: bool = True) -> subprocess.Popen[str]:
    """``renio`` with a Ray of its own, whose workers are forked."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | (warm.for_drivers() if forked else {})
    return subprocess.Popen(
        [sys.executable, "-m", "renio_pipeline", *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def train(folder: Path, *arguments: str, forked: bool = True) -> subprocess.Popen[str]:
    return start("train", "--config", "configs/demo.yaml", f"run_dir={folder}", *arguments, forked=forked)


def finish(process: subprocess.Popen[str], code: int = 0, seconds: float = 500) -> str:
    """What it printed."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == code, output
    return output


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if not k.startswith(VARIES)} for line in lines_of(folder / "metrics.jsonl")]


def responses(folder: Path) -> list[dict[str, Any]]:
    return [line for path in sorted((folder / "samples").glob("step_*.jsonl")) for line in lines_of(path)]


def written(folder: Path) -> list[dict[str, Any]]:
    """Responses, without the incarnation of the weights that wrote them."""
    return [r | {"version": r["version"].partition(".")[2]} for r in responses(folder)]
