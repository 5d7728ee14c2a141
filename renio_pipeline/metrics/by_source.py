"""What a step's metrics are of each source, where a run mixes several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from renio_pipeline.grading.grader import Judged, by_student
from renio_pipeline.metrics.registry import of_source
from renio_pipeline.stages.outcomes import StepResult
from renio_pipeline.types import Rollout


def response_metrics_by_source(judged: Mapping[int, Judged]) -> dict[str, float]:
    """Of all of a step's responses, whether the filter kept them or not; nothing if there is a single source."""
    found: dict[str, float] = {}
    written = by_student(judged.values())
    for source in _sources(j.rollout for j in written):
        own = [j for j in written if j.rollout.prompt.row.source == source]
        found[of_source(source, "response_tokens")] = float(np.mean([len(j.rollout.token_ids) for j in own]))
        if graded := [j.verdict == "correct" for j in own if j.verdict is not None]:
            found[of_source(source, "accuracy")] = float(np.mean(graded))
    return found


def trained_metrics_by_source(result: StepResult) -> dict[str, float]:
    """Of the samples that a step trained on; nothing if there is a single source."""
    found: dict[str, float] = {}
    rollouts = [s.rollout for s in result.scored]
    for source in _sources(rollouts):
        own = [i for i, rollout in enumerate(rollouts) if rollout.prompt.row.source == source]
        found[of_source(source, "samples")] = len(own)
        if result.weighed is not None:
            found[of_source(source, "weight")] = float(np.mean([result.weighed.weights[i] for i in own]))
            written = [i for i in own if rollouts[i].by_a_student]
            tokens = sum(len(rollouts[i].token_ids) for i in written)
            found[of_source(source, "pivotal")] = sum(len(result.weighed.pivotal[i]) for i in written) / max(1, tokens)
    return found


def _sources(rollouts: Iterable[Rollout]) -> list[str]:
    return sorted({source for rollout in rollouts if (source := rollout.prompt.row.source) is not None})
