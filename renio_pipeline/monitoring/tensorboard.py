"""The metrics as TensorBoard event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from renio_pipeline.grading.grader import by_student
from renio_pipeline.metrics.sink import Sink
from renio_pipeline.stages.outcomes import SkippedStep, StepResult

FLUSH_SECONDS = 10


class TensorBoardSink(Sink):
    """Event files in a folder, written on the writer's own thread. Steps that are done again replace the earlier ones."""

    def __init__(self, folder: Path, last_step: int = 0) -> None:
        """``last_step``: the step after which the run resumes; 0 for a new run."""
        self._folder, self._last = folder, last_step
        self._writer = self._open(last_step + 1 if last_step else None)

    def observe(self, result: StepResult | SkippedStep) -> None:
        if result.step <= self._last:  # the run was rolled back
            self._writer.close()
            self._writer = self._open(result.step)
        self._last = result.step
        lengths = [len(j.rollout.token_ids) for j in by_student(result.judged.values())]
        if lengths:
            self._writer.add_histogram("response/length", np.array(lengths), result.step)
        if isinstance(result, StepResult) and result.weighed is not None:
            self._writer.add_histogram("weights/all", result.weighed.weights, result.step)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()

    def _open(self, purge_from: int | None) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._folder), purge_step=purge_from, flush_secs=FLUSH_SECONDS)
