"""``batches.jsonl``: what each step was trained on, in a line: ids, weights, verdicts and lengths, without the responses.

A run's page, its proof and its AUROC need no more of most steps, and find it here at once: a step's samples with their tokens
are a thousand times as large, and may have been dropped (``samples.keep``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from renio_pipeline.run_dir.json_lines import complete_lines, plain_paths
from renio_pipeline.types import Verdict

FILE = "batches.jsonl"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A step's N samples, in the order of its file. Where nothing was distilled, all weights are 1."""

    step: int
    sample_ids: list[int]
    raw: np.ndarray  # [N] float32, weights before normalization
    weight: np.ndarray  # [N] float32
    verdict: list[Verdict | None]
    tokens: np.ndarray  # [N] int64, response lengths
    weighed: bool = True  # whether a weighting made the weights


def batch_record(step: int, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The line of a step's sample records; the inverse of ``_batch``."""
    weighed = all("raw_weight" in r for r in records)
    weights = {"raw": "raw_weight", "weight": "weight"} if weighed else {}
    return {
        "step": step,
        "sample_ids": [r["sample_id"] for r in records],
        **{name: _short([r[field] for r in records]) for name, field in weights.items()},
        "verdict": [r["verdict"] for r in records],
        "tokens": [len(r["token_ids"]) for r in records],
    }


def _short(values: Sequence[float]) -> list[float]:
    """Each number with as many digits as tell its float32 from all others."""
    return [float(str(x)) for x in np.asarray(values, np.float32)]


def read_batches(run_dir: Path) -> dict[int, Batch]:
    """Every step that trained, in order. Steps that an earlier version recorded are read from their samples.

    Raises:
        ValueError: a file is damaged.
    """
    found = {line["step"]: _batch(line) for line in complete_lines(run_dir / FILE)}
    for step, path in step_files(run_dir).items():
        if step not in found:
            found[step] = _batch(batch_record(step, list(complete_lines(path))))
    return dict(sorted(found.items()))


def _batch(line: dict[str, Any]) -> Batch:
    ones = [1.0] * len(line["sample_ids"])
    return Batch(
        step=line["step"],
        sample_ids=line["sample_ids"],
        raw=np.array(line.get("raw", ones), np.float32),
        weight=np.array(line.get("weight", ones), np.float32),
        weighed="weight" in line,
        verdict=line["verdict"],
        tokens=np.array(line["tokens"], np.int64),
    )


def step_files(run_dir: Path) -> dict[int, Path]:
    """The files of the steps whose samples are there, in order, by their plain names, whether packed or not."""
    return dict(sorted((step_of(path), path) for path in plain_paths(run_dir / "samples", "step_*.jsonl")))


def step_path(run_dir: Path, step: int) -> Path:
    """The file of a step's samples, by its plain name."""
    return run_dir / "samples" / f"step_{step:06d}.jsonl"


def step_of(path: Path) -> int:
    """The step of a file that is named ``step_000001.jsonl``."""
    return int(path.stem.removeprefix("step_"))
