"""What a step's result says: the metrics, and the samples as a person reads them."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import Any

import numpy as np

from renio_pipeline.pipeline import StepResult
from renio_pipeline.tasks import Task
from renio_pipeline.types import ScoredRollout, Verdict


def decode(tokenizer: Any, scored: Sequence[ScoredRollout]) -> list[str]:
    """Responses as text, once, for grading and logs."""
    texts: list[str] = tokenizer.batch_decode([s.rollout.token_ids for s in scored], skip_special_tokens=True)
    return texts


def grade(task: Task, scored: Sequence[ScoredRollout], texts: Sequence[str]) -> list[Verdict | None]:
    return [task.verify(s.rollout.prompt.row, text) for s, text in zip(scored, texts, strict=True)]


def step_metrics(result: StepResult, verdicts: Sequence[Verdict | None], sizes: dict[str, int]) -> dict[str, float]:
    """Every metric of a step by its registered name. A metric that the step cannot give is left out, never NaN."""
    report, publication, scored = result.report, result.publication, result.scored
    lengths = [len(s.rollout.token_ids) for s in scored]
    metrics: dict[str, float] = {
        "loss": report.loss,
        "divergence": report.divergence,
        "grad_norm": report.grad_norm,
        "lr": report.lr,
        "mismatch/logprob_abs_mean": report.mismatch_mean,
        "mismatch/logprob_abs_max": report.mismatch_max,
        **result.weighed.metrics,
        "response/tokens": float(np.mean(lengths)),
        "response/truncated": float(np.mean([s.rollout.stop_reason == "length" for s in scored])),
        "staleness/max": 0,
        "tokens/generated": sum(lengths),
        "tokens/scored": sum(lengths) + sum(len(s.rollout.prompt.teacher_ids) for s in scored),
        "tokens/trained": report.tokens,
        "tokens/padding": report.padding,
        **result.seconds,
        **result.idle,
        "time/idle": float(np.mean(list(result.idle.values()))) * result.seconds["time/step"],
        "sync/bytes": publication.bytes,
        "sync/version": publication.version.number,
        "sync/publish": publication.publish_seconds,
        "sync/receive": publication.receive_seconds,
        "payload/bytes": sum(s.scores.payload_bytes for s in scored),
        "memory/driver/peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **{f"pool/{pool}/size": size for pool, size in sizes.items()},
    }
    return metrics | verdict_metrics(result.weighed.raw, result.weighed.weights, verdicts)


def verdict_metrics(raw: np.ndarray, weights: np.ndarray, verdicts: Sequence[Verdict | None]) -> dict[str, float]:
    """How the weights stand to the verdicts. Samples without a verdict count nowhere."""
    import torch

    from renio_pipeline.weighting import auroc

    graded = np.array([v is not None for v in verdicts], dtype=bool)
    wrong = np.array([v != "correct" for v in verdicts], dtype=bool)[graded]
    if not graded.any():
        return {}
    metrics = {"reward/accuracy": float(1 - wrong.mean())}
    area = auroc(torch.tensor(raw[graded]), torch.tensor(wrong))
    if area is not None:
        metrics["weights/auroc"] = area
        metrics["weights/wrong_over_right"] = float(weights[graded][wrong].mean() / weights[graded][~wrong].mean())
    return metrics


def sample_records(result: StepResult, texts: Sequence[str], verdicts: Sequence[Verdict | None]) -> list[dict[str, Any]]:
    """One JSON object a sample, for ``samples/step_*.jsonl``."""
    weighed = result.weighed
    return [
        {
            "sample_id": s.rollout.sample_id,
            "row": s.rollout.prompt.row.id,
            "problem": s.rollout.prompt.row.problem,
            "response": texts[i],
            "token_ids": s.rollout.token_ids.tolist(),
            "student_logprobs": s.rollout.logprobs.tolist(),
            "teacher_logprobs": s.scores.logprobs.tolist(),
            "pivotal": weighed.pivotal[i].tolist(),
            "raw_weight": float(weighed.raw[i]),
            "weight": float(weighed.weights[i]),
            "verdict": verdicts[i],
            "stop_reason": s.rollout.stop_reason,
            "version": str(s.rollout.version),
            "generator": s.rollout.replica,
            "teacher": s.scores.replica,
        }
        for i, s in enumerate(result.scored)
    ]
