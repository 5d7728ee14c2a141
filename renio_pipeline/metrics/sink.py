"""Where a run's metrics go: the interface of a sink, and ``metrics.jsonl``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from renio_pipeline.metrics.registry import METRICS, source_quantity
from renio_pipeline.run_dir.fence import NO_FENCE, Fence

if TYPE_CHECKING:
    from renio_pipeline.stages.outcomes import SkippedStep, StepResult


class Sink:
    """Takes the metrics of each step. A sink overrides the methods that it needs."""

    def observe(self, result: StepResult | SkippedStep) -> None:
        """Take a step's result, before its metrics are written."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        pass

    def count(self, totals: Mapping[str, int]) -> None:
        """Take the current TOTALS."""

    async def on_run_end(self, error: Exception | None) -> None:
        """The run has done its last step, or fails with ``error``: let pollers fetch the final figures."""

    def close(self) -> None:
        pass


class JsonlSink(Sink):
    """``metrics.jsonl``: one line per step, flushed, so that a reader can follow the run."""

    def __init__(self, path: Path, fence: Fence = NO_FENCE) -> None:
        self._path = path  # reopened for each line: a run that is rolled back replaces the file
        self._fence = fence
        fence.append(path, b"")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a step's line.

        Raises:
            ValueError: a name is outside the registry, or a value is not finite.
            LeaseLostError: another driver writes the run's directory now.
        """
        unknown = {name for name in metrics.keys() - METRICS.keys() if source_quantity(name) is None}
        if unknown:
            raise ValueError(f"metrics without an entry in the registry: {sorted(unknown)}")
        bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
        if bad:
            raise ValueError(f"step {step}: metrics that are not finite: {bad}")
        self._fence.append(self._path, json.dumps({"step": step, **metrics}).encode() + b"\n")


def read_jsonl(path: Path) -> list[dict[str, float]]:
    """The lines of ``metrics.jsonl``, in order: ``step`` and the metrics by name."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
