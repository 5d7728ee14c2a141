"""What must be true of a step's samples before anything is trained on them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from renio_pipeline.loop.selection import exactly_once
from renio_pipeline.types import NonFiniteError, ScoredRollout, Version


def in_order(scored: Sequence[ScoredRollout], kept: Sequence[int]) -> None:
    """Assert that every sample that was kept was scored exactly once, and that they are in the order of their ids."""
    came = [s.rollout.sample_id for s in scored]
    exactly_once(came, kept)
    assert came == sorted(came), f"samples came back as {came}, not in the order of their ids"


def age(scored: Sequence[ScoredRollout], version: Version, bound: int) -> int:
    """The staleness of the oldest token in versions, relative to the weights to be trained; asserted to be within ``bound``.

    A response that the student did not write has none.
    """
    versions = {s.rollout.sample_id: s.rollout.version for s in scored if s.rollout.off_policy is None}
    bad = [
        i for i, v in versions.items() if v.incarnation != version.incarnation or not 0 <= version.number - v.number <= bound
    ]
    limit = f" or up to {bound} before it" if bound else ""
    assert not bad, f"samples {bad} were not written by version {version}{limit}"
    return version.number - min((v.number for v in versions.values()), default=version.number)


def numbers(step: int, scored: Sequence[ScoredRollout], student: Sequence[np.ndarray]) -> None:
    """Check the log-probabilities of both sides, [T] of each sample. A NaN would pass for a token that is not pivotal.

    Raises:
        NonFiniteError: a log-probability is NaN; the text names the samples.
    """
    found = [
        [own, s.rollout.logprobs, *([] if s.scores is None else [s.scores.logprobs])]
        for s, own in zip(scored, student, strict=True)
    ]
    if np.isnan(np.concatenate(list(itertools.chain.from_iterable(found)))).any():
        bad = [s.rollout.sample_id for s, own in zip(scored, found, strict=True) if np.isnan(np.concatenate(own)).any()]
        raise NonFiniteError(f"step {step}: log-probabilities are NaN; samples {bad}")
