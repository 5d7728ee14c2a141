"""Whether an arm is clearly ahead, looked at after each seed.

Problems are paired by id and tested by sign flips. The error of 5 % is shared out over all looks and all comparisons of a look
(Bonferroni), so that looking often does not make a winner. What the test treats as drawn at random are the problems; how much
another seed would change is seen only by the spread over seeds, so that nothing ends after a single one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from renio_pipeline.arms.cell import Answers, accuracy, paired
from renio_pipeline.evaluation.bootstrap import Estimate, estimate, resampled_means
from renio_pipeline.evaluation.compare import sign_flip

ERROR = 0.05
LEAST_SEEDS = 2


@dataclass(frozen=True, kw_only=True)
class Against:
    """The leading arm against another."""

    other: str
    difference: Estimate  # share of correct answers, 95 % interval over problems
    by_seed: tuple[float, ...]
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Look:
    """What there is to see after some seeds."""

    seeds: int
    accuracy: dict[str, float]  # mean over seeds, by arm
    leader: str
    against: list[Against]
    clear: bool  # it is ahead of every other, in each seed's mean too

    @property
    def winner(self) -> str | None:
        return self.leader if self.clear else None


def look(found: Mapping[str, Sequence[Answers]], *, looks: int, seed: int = 0) -> Look:
    """Compare the arms after the seeds that all of them have.

    Args:
        found: by arm, the answers after each seed's run.
        looks: how many looks there may be in all.
    """
    seeds = min(map(len, found.values()))
    done = {name: list(each[:seeds]) for name, each in found.items()}
    means = {name: float(np.mean([accuracy(a) for a in each])) for name, each in done.items()}
    leader = max(means, key=lambda name: means[name])
    against = []
    for other in (name for name in done if name != leader):
        differences = paired(done[leader], done[other])
        by_seed = tuple(float(paired([a], [b]).mean()) for a, b in zip(done[leader], done[other], strict=True))
        drawn = resampled_means(differences[:, None], seed=seed)[:, 0]
        p_value, _ = sign_flip(differences, seed=seed)
        against.append(Against(other=other, difference=estimate(differences.mean(), drawn), by_seed=by_seed, p_value=p_value))
    level = ERROR / (looks * len(against))
    clear = seeds >= LEAST_SEEDS and all(a.p_value < level and min(a.by_seed) > 0 for a in against)
    return Look(seeds=seeds, accuracy=means, leader=leader, against=against, clear=clear)
