"""What a step's result says: the metrics, and the samples as a person reads them."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from renio_pipeline.pipeline import SkippedStep, StepResult
from renio_pipeline.selection import Judged
from renio_pipeline.types import Verdict


def response_metrics(judged: Mapping[int, Judged], kept: int) -> dict[str, float]:
    """What a step's responses say of the student, whether they were kept or not."""
    rollouts = [j.rollout for j in judged.values()]
    lengths = [len(r.token_ids) for r in rollouts]
    return {
        "response/tokens": float(np.mean(lengths)),
        "response/truncated": float(np.mean([r.stop_reason == "length" for r in rollouts])),
        "tokens/generated": sum(lengths),
        "filter/drawn": len(rollouts),
        "filter/kept": kept / len(rollouts),
        **accuracy([j.verdict for j in judged.values()]),
    }


def skipped_metrics(result: SkippedStep, sizes: dict[str, int]) -> dict[str, float]:
    """Of a step that trained on nothing."""
    return response_metrics(result.judged, 0) | result.seconds | _sizes(sizes)


def step_metrics(result: StepResult, sizes: dict[str, int]) -> dict[str, float]:
    """Every metric of a step by its registered name. A metric that the step cannot give is left out, never NaN."""
    report, publication, scored = result.report, result.publication, result.scored
    verdicts = [result.judged[s.rollout.sample_id].verdict for s in scored]
    return {
        "loss": report.loss,
        "divergence": report.divergence,
        "grad_norm": report.grad_norm,
        "lr": report.lr,
        "mismatch/logprob_abs_mean": report.mismatch_mean,
        "mismatch/logprob_abs_max": report.mismatch_max,
        **result.weighed.metrics,
        **response_metrics(result.judged, len(scored)),
        "staleness/max": 0,
        "tokens/scored": sum(len(s.rollout.token_ids) + len(s.rollout.prompt.teacher_ids) for s in scored),
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
        **_sizes(sizes),
        **verdict_metrics(result.weighed.raw, result.weighed.weights, verdicts),
    }


def _sizes(sizes: dict[str, int]) -> dict[str, float]:
    return {f"pool/{pool}/size": size for pool, size in sizes.items()}


def accuracy(verdicts: Sequence[Verdict | None]) -> dict[str, float]:
    """Share of correct ones among those with a verdict."""
    graded = [v for v in verdicts if v is not None]
    return {"reward/accuracy": float(np.mean([v == "correct" for v in graded]))} if graded else {}


def verdict_metrics(raw: np.ndarray, weights: np.ndarray, verdicts: Sequence[Verdict | None]) -> dict[str, float]:
    """How the weights stand to the verdicts. Samples without a verdict count nowhere."""
    import torch

    from renio_pipeline.weighting import auroc

    graded = np.array([v is not None for v in verdicts], dtype=bool)
    wrong = np.array([v != "correct" for v in verdicts], dtype=bool)[graded]
    area = auroc(torch.tensor(raw[graded]), torch.tensor(wrong))
    if area is None:  # no verdicts, or all the same
        return {}
    ratio = weights[graded][wrong].mean() / weights[graded][~wrong].mean()
    return {"weights/auroc": area, "weights/wrong_over_right": float(ratio)}


def sample_records(result: StepResult) -> list[dict[str, Any]]:
    """One JSON object a sample that was kept, for ``samples/step_*.jsonl``."""
    weighed = result.weighed
    judged = [result.judged[s.rollout.sample_id] for s in result.scored]
    return [
        {
            "sample_id": s.rollout.sample_id,
            "row": s.rollout.prompt.row.id,
            "problem": s.rollout.prompt.row.problem,
            "response": judged[i].text,
            "token_ids": s.rollout.token_ids.tolist(),
            "student_logprobs": s.rollout.logprobs.tolist(),
            "teacher_logprobs": s.scores.logprobs.tolist(),
            "pivotal": weighed.pivotal[i].tolist(),
            "raw_weight": float(weighed.raw[i]),
            "weight": float(weighed.weights[i]),
            "verdict": judged[i].verdict,
            "stop_reason": s.rollout.stop_reason,
            "version": str(s.rollout.version),
            "generator": s.rollout.replica,
            "teacher": s.scores.replica,
        }
        for i, s in enumerate(result.scored)
    ]
