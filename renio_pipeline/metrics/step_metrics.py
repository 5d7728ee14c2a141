"""From a step's result to its metrics, and to the sample records that a person reads."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from renio_pipeline.grading.grader import Judged, by_student
from renio_pipeline.metrics.auroc import auroc
from renio_pipeline.metrics.by_source import response_metrics_by_source, trained_metrics_by_source
from renio_pipeline.rewards import Rewarded
from renio_pipeline.stages.outcomes import SkippedStep, StepResult
from renio_pipeline.types import Rollout, ScoredRollout, Verdict
from renio_pipeline.weightings.step import Weighed


def response_metrics(judged: Mapping[int, Judged], kept: int) -> dict[str, float]:
    """Metrics of all of a step's responses, whether the filter kept them or not."""
    own = by_student(judged.values())
    rollouts = [j.rollout for j in own]
    if not rollouts:
        return {"tokens/generated": 0, "filter/drawn": 0}
    lengths = [len(r.token_ids) for r in rollouts]
    return {
        "response/tokens": float(np.mean(lengths)),
        "response/truncated": float(np.mean([r.stop_reason == "length" for r in rollouts])),
        "tokens/generated": sum(lengths),
        "filter/drawn": len(rollouts),
        "filter/kept": kept / len(rollouts),
        "grading/given_up": sum(j.given_up for j in own),
        **accuracy([j.verdict for j in own]),
        **response_metrics_by_source(judged),
    }


Pools = Mapping[str, Mapping[str, int]]  # statuses by pool, see ``renio_pipeline.stages.elastic_pool``


def skipped_metrics(result: SkippedStep, sizes: dict[str, int], pools: Pools) -> dict[str, float]:
    """The metrics of a step that trained on no sample."""
    return response_metrics(result.judged, 0) | result.seconds | _sizes(sizes, pools)


def step_metrics(result: StepResult, sizes: dict[str, int], pools: Pools) -> dict[str, float]:
    """All metrics of a step, by registered name. A metric that is undefined for the step is left out, never NaN."""
    report, publication, scored = result.report, result.publication, result.scored
    verdicts = [result.judged[s.rollout.sample_id].verdict for s in scored]
    return {
        "loss": report.loss,
        **({} if result.weighed is None else {"divergence": report.divergence}),  # of a teacher, which rewards alone have not
        "grad_norm": report.grad_norm,
        "lr": report.lr,
        **_mismatch(result),
        **report.agreement,
        **report.measured,
        **_weight_metrics(result, verdicts),
        **({} if result.rewarded is None else result.rewarded.metrics),
        **response_metrics(result.judged, sum(s.rollout.off_policy is None for s in scored)),
        **off_policy_metrics(scored),
        "staleness/max": result.staleness,
        "tokens/scored": _read_by_teachers(scored),
        "tokens/trained": report.tokens,
        "tokens/padding": report.padding,
        **result.seconds,
        **result.idle,
        "time/idle": float(np.mean(list(result.idle.values()))) * result.seconds["time/step"],
        "sync/bytes": publication.bytes,
        "sync/version": publication.version.number,
        "sync/publish": publication.publish_seconds,
        "sync/receive": publication.receive_seconds,
        "payload/bytes": sum(s.scores.payload_bytes for s in scored if s.scores),
        "memory/driver/peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **_sizes(sizes, pools),
        **trained_metrics_by_source(result),
    }


def _read_by_teachers(scored: Sequence[ScoredRollout]) -> int:
    """Prompt and response tokens of the samples that a teacher scored in this run: a recorded one reads nothing."""
    rollouts = [s.rollout for s in scored if s.scores and s.rollout.off_policy != "recorded"]
    return sum(len(r.token_ids) + len(r.prompt.teacher_ids) for r in rollouts)


def _mismatch(result: StepResult) -> dict[str, float]:
    """How far generator and trainer differ; nothing where no generator wrote anything."""
    if all(s.rollout.off_policy is not None for s in result.scored):
        return {}
    report = result.report
    return {"mismatch/logprob_abs_mean": report.mismatch_mean, "mismatch/logprob_abs_max": report.mismatch_max}


def off_policy_metrics(scored: Sequence[ScoredRollout]) -> dict[str, float]:
    """Of the responses that the student did not write; nothing where there are none."""
    lengths = [len(s.rollout.token_ids) for s in scored if s.rollout.off_policy is not None]
    return {"off_policy/fraction": len(lengths) / len(scored), "off_policy/tokens": float(np.mean(lengths))} if lengths else {}


def _weight_metrics(result: StepResult, verdicts: Sequence[Verdict | None]) -> dict[str, float]:
    """What the weights were, and how well they predict the verdicts; nothing where nothing is distilled."""
    weighed, after = result.weighed, result.report.loss_after_pivotal
    if weighed is None:
        return {}
    loss_after = {} if after is None else {"pivotal/loss_after": after}
    return {**loss_after, **weighed.metrics, **verdict_metrics(weighed.raw, weighed.weights, verdicts)}


def _sizes(sizes: dict[str, int], pools: Pools) -> dict[str, float]:
    """Size, queue and restarts of each pool; summed where a run has several teacher pools."""
    found: dict[str, float] = {f"pool/{pool}/size": size for pool, size in sizes.items()}
    for pool in sizes:
        of_kind = [status for name, status in pools.items() if name.partition(".")[0] == pool]
        found |= {f"pool/{pool}/{key}": sum(status[key] for status in of_kind) for key in ("queue", "restarts")}
    return found


def accuracy(verdicts: Sequence[Verdict | None]) -> dict[str, float]:
    """The share of correct responses among those with a verdict; nothing if no response has one."""
    graded = [v for v in verdicts if v is not None]
    return {"reward/accuracy": float(np.mean([v == "correct" for v in graded]))} if graded else {}


def verdict_metrics(raw: np.ndarray, weights: np.ndarray, verdicts: Sequence[Verdict | None]) -> dict[str, float]:
    """How well the weights predict the verdicts. Samples without a verdict are ignored.

    Args:
        raw: [N] raw weights.
        weights: [N] normalized weights.
        verdicts: one per sample.
    """
    graded = np.array([v is not None for v in verdicts], dtype=bool)
    wrong = np.array([v != "correct" for v in verdicts], dtype=bool)[graded]
    area = auroc(raw[graded], wrong)
    if area is None:  # no verdicts, or only one class
        return {}
    right = weights[graded][~wrong].mean()
    ratio = {"weights/wrong_over_right": float(weights[graded][wrong].mean() / right)} if right else {}
    return {"weights/auroc": area, **ratio}


def sample_records(result: StepResult) -> list[dict[str, Any]]:
    """One JSON object for each sample that was trained on, for ``samples/step_*.jsonl``."""
    weighed = result.weighed
    judged = [result.judged[s.rollout.sample_id] for s in result.scored]
    return [
        {
            "sample_id": s.rollout.sample_id,
            "row": s.rollout.prompt.row.id,
            **({} if s.rollout.prompt.row.source is None else {"source": s.rollout.prompt.row.source}),
            "problem": s.rollout.prompt.row.problem,
            "response": judged[i].text,
            "token_ids": s.rollout.token_ids.tolist(),
            **({} if np.isnan(s.rollout.logprobs).any() else {"student_logprobs": s.rollout.logprobs.tolist()}),
            **({} if s.scores is None else {"teacher_logprobs": s.scores.logprobs.tolist()}),
            **({} if weighed is None else _weight_record(weighed, i)),
            **({} if result.rewarded is None else _reward_record(result.rewarded, i)),
            "verdict": judged[i].verdict,
            "stop_reason": s.rollout.stop_reason,
            "version": str(s.rollout.version) if s.rollout.off_policy is None else "off-policy",
            **({} if s.rollout.off_policy is None else {"off_policy": s.rollout.off_policy}),
            **_spans(s.rollout),
            "generator": s.rollout.replica,
            **({} if s.scores is None else {"teacher": s.scores.replica}),
        }
        for i, s in enumerate(result.scored)
    ]


def _weight_record(weighed: Weighed, i: int) -> dict[str, Any]:
    return {
        "pivotal": weighed.pivotal[i].tolist(),
        "raw_weight": float(weighed.raw[i]),
        "weight": float(weighed.weights[i]),
        **({} if weighed.token_factors is None else {"token_factors": weighed.token_factors[i].tolist()}),
    }


def _reward_record(rewarded: Rewarded, i: int) -> dict[str, Any]:
    return {
        "reward": float(rewarded.rewards[i]),
        "advantage": float(rewarded.advantages[i]),
        "taught": bool(rewarded.taught[i]),
    }


def _spans(rollout: Rollout) -> dict[str, str]:
    """The version of the last token, if a weight sync happened in between."""
    last = rollout.last_version
    return {} if last in (None, rollout.version) else {"last_version": str(last)}
