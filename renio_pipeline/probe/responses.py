"""One of the student's responses, with everything that a probe measures on it before a teacher goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from renio_pipeline.config.schema import Pivotal
from renio_pipeline.metrics.weight_scores import WEIGHT, scores
from renio_pipeline.types import Prompt, ScoredRollout, StopReason, TrainSample, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """What the trainer's forward pass says of one response."""

    logprobs: np.ndarray  # [T] float32, log p_S of its tokens in nats
    losses: np.ndarray  # [T] float32, the objective's divergences in nats


@dataclass(frozen=True, kw_only=True)
class Response:
    """A scored response. Of the ReNIO weight (arXiv 2606.23104) it has what does not depend on the others."""

    prompt: Prompt
    token_ids: np.ndarray  # [T] int32
    stop_reason: StopReason
    verdict: Verdict | None
    generator: np.ndarray  # [T] float32, the generator's log p_S in nats
    teacher: np.ndarray  # [T] float32, log p_T in nats
    pivotal: Pivotal  # what counts as a pivotal token
    forward: Forward | None = None
    by_trainer: bool = False  # the weights use the trainer's log p_S
    error: str | None = None  # what kind of error an incorrect one has, where its task tells kinds apart

    @property
    def student(self) -> np.ndarray:
        """[T] float32, the log p_S that weights are computed from."""
        return self.forward.logprobs if self.by_trainer and self.forward is not None else self.generator

    @property
    def wrong(self) -> bool:
        """Not correct: an unfinished response is wrong too. False without a verdict."""
        return self.verdict is not None and self.verdict != "correct"

    @cached_property
    def marked(self) -> np.ndarray:
        """[T] bool, which tokens are pivotal."""
        return marked(self.student, self.teacher, self.pivotal)

    @property
    def first(self) -> int | None:
        """The position of the first pivotal token."""
        places = np.flatnonzero(self.marked)
        return int(places[0]) if len(places) else None

    @cached_property
    def after(self) -> np.ndarray:
        """[T] bool, which tokens come after the first pivotal one."""
        return np.cumsum(self.marked) - self.marked > 0

    @cached_property
    def scores(self) -> dict[str, float]:
        """See ``renio_pipeline.metrics.weight_scores``."""
        return scores(self.student, self.teacher, threshold=self.pivotal.threshold, clip=self.pivotal.clip)

    @property
    def raw(self) -> float:
        """The raw weight: 1 without a pivotal token."""
        return float(np.exp(self.scores[WEIGHT] / self.pivotal.temperature))


def train_sample(scored: ScoredRollout) -> TrainSample:
    """A scored response as the trainer's forward pass takes it. Weights do not enter a token's divergence."""
    r = scored.rollout
    return TrainSample(
        sample_id=r.sample_id,
        prompt_ids=r.prompt.student_ids,
        response_ids=r.token_ids,
        student_logprobs=r.logprobs,
        teacher_logprobs=scored.teacher_logprobs,
        weight=1.0,
        payload=scored.scores.payload if scored.scores else None,
    )


def marked(student: np.ndarray, teacher: np.ndarray, pivotal: Pivotal) -> np.ndarray:
    """[T] bool: where log p_S − log p_T reaches the threshold. In float32, as the weights are computed."""
    found: np.ndarray = student.astype(np.float32) - teacher.astype(np.float32) >= np.float32(pivotal.threshold)
    return found


def by_teacher(responses: Sequence[Response], teachers: Sequence[str]) -> dict[str, list[Response]]:
    """The responses of each teacher, in their order. A single teacher, whose name is empty, has all."""
    if len(teachers) == 1:
        return {teachers[0]: list(responses)}
    return {name: [r for r in responses if r.prompt.row.teacher == name] for name in teachers}
