"""The registry of metric names and units, and the sinks of a run's metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from renio_pipeline.stages.outcomes import SkippedStep, StepResult

# name -> (unit, meaning). A "*" stands for a pool.
METRICS: dict[str, tuple[str, str]] = {
    "loss": ("nats", "weighted loss of the step's global batch"),
    "divergence": ("nats", "mean over samples of the mean divergence of their tokens, unweighted"),
    "grad_norm": ("", "gradient norm before clipping"),
    "lr": ("", "learning rate of the step"),
    "mismatch/logprob_abs_mean": ("nats", "generator against trainer, on the tokens trained on"),
    "mismatch/logprob_abs_max": ("nats", "generator against trainer, on the tokens trained on"),
    "weights/max": ("", "largest sample weight"),
    "weights/min": ("", "smallest sample weight"),
    "weights/effective_sample_size": ("samples", "(sum w)^2 / sum w^2"),
    "weights/auroc": ("", "of the raw weight as a sign of an answer that is not correct"),
    "weights/wrong_over_right": ("", "mean weight of answers that are not correct over that of correct ones"),
    "pivotal/fraction": ("", "share of response tokens that are pivotal"),
    "ratio/mean": ("nats", "mean log-ratio of student to teacher, not clipped"),
    "reward/accuracy": ("", "share of the step's responses, kept or not, that the verifier calls correct"),
    "filter/drawn": ("samples", "responses written in the step"),
    "filter/kept": ("", "share of them that the filter kept"),
    "grading/given_up": ("responses", "judged incorrect because no verdict came in time"),
    "response/tokens": ("tokens", "mean response length"),
    "response/truncated": ("", "share of responses that reached max_response_tokens"),
    "staleness/max": ("versions", "age of the oldest sample trained on"),
    "tokens/generated": ("tokens", "response tokens written in the step"),
    "tokens/scored": ("tokens", "prompt and response tokens read by the teacher"),
    "tokens/trained": ("tokens", "prompt and response tokens trained on"),
    "tokens/padding": ("", "share of the trainer's computed tokens that were padding"),
    "time/step": ("seconds", "wall time of the step"),
    "time/start": ("seconds", "start of the step to its first prompt; negative where that was sent out ahead"),
    "time/first_response": ("seconds", "first prompt to first response"),
    "time/generate": ("seconds", "first prompt to last response"),
    "time/score": ("seconds", "first response to last score; overlaps time/generate"),
    "time/weigh": ("seconds", "weighting"),
    "time/train": ("seconds", "forward, backward and optimizer step"),
    "time/turns": ("seconds", "with placement colocated: handing the GPUs to the trainer and back"),
    "time/turn_back": ("seconds", "of it, back to the generators"),
    "time/sync": ("seconds", "weights to all generators, and the wait for responses under way"),
    "time/sync_wait": ("seconds", "of it, the wait"),
    "time/idle": ("seconds", "of the step that a replica spent idle, averaged over the pools"),
    "idle/generator": ("", "share of the step in which the pool's replicas did nothing, on average"),
    "idle/teacher": ("", "as above"),
    "idle/trainer": ("", "as above; sending weights counts as work"),
    "sync/bytes": ("bytes", "weights published"),
    "sync/version": ("", "version that the generators have after the step"),
    "sync/publish": ("seconds", "writing the host copy"),
    "sync/receive": ("seconds", "the slowest generator's fetch, before its engine's load"),
    "payload/bytes": ("bytes", "teacher payload of the step"),
    "memory/driver/peak": ("bytes", "peak resident memory of the driver"),
    "pool/generator/size": ("replicas", "generators"),
    "pool/teacher/size": ("replicas", "teachers"),
    "pool/generator/queue": ("samples", "waiting for a generator when the step ended"),
    "pool/teacher/queue": ("samples", "waiting for a teacher when the step ended"),
    "pool/generator/restarts": ("", "generators that were replaced, so far"),
    "pool/teacher/restarts": ("", "teachers that were replaced, so far"),
    "eval/accuracy": ("", "held-out accuracy, sampled"),
    "eval/response_tokens": ("tokens", "mean held-out response length"),
}

# What this driver has counted so far: no part of a step's line, which must not tell how often the step was done.
TOTALS = {
    "replayed/steps": "steps that are trained again because a rank was lost",
    "replayed/samples": "samples that are trained again because a rank was lost",
    "samples/rejected": "samples that were set aside",
}


class Sink:
    """Where a step's figures go. Each sink overrides what it takes."""

    def observe(self, result: StepResult | SkippedStep) -> None:
        """A step, before its metrics."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        pass

    def count(self, totals: Mapping[str, int]) -> None:
        """Take over the current TOTALS."""

    async def farewell(self, error: Exception | None) -> None:
        """The run has done its last step, or fails of ``error``: whoever fetches its figures may fetch these."""

    def close(self) -> None:
        pass


class JsonlSink(Sink):
    """``metrics.jsonl``: one line a step, flushed, so that a reader sees the run as it goes."""

    def __init__(self, path: Path) -> None:
        self._path = path  # opened for each line: a run that goes back replaces the file
        path.touch()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Raises ValueError for a name that is not in the registry or a value that is not finite."""
        unknown = metrics.keys() - METRICS.keys()
        if unknown:
            raise ValueError(f"metrics without an entry in the registry: {sorted(unknown)}")
        bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
        if bad:
            raise ValueError(f"step {step}: metrics that are not finite: {bad}")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")


def read_jsonl(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
