"""Whether one model is better than another on the same problems: a paired test, problem by problem."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from renio_pipeline.config import ConfigError
from renio_pipeline.evaluation.bootstrap import Estimate, estimate, resampled_means
from renio_pipeline.evaluation.records import Problem

MOST_EXACT = 12  # with up to this many nonzero differences all sign patterns (2^12) are enumerated, otherwise drawn
DRAWS = 50_000
_AT_ONCE = 2**22
_SAME = 1e-12  # tolerance for sums of the same terms in another order


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """B against A on one data set: shares of correct responses, and the mean over problems of B's share minus A's."""

    data_set: str
    a: str
    b: str
    problems: int  # problems that both answered
    only_a: int  # problems that only A answered, which are left out
    only_b: int
    mean_a: float
    mean_b: float
    difference: Estimate
    p_value: float  # two-sided
    test: str


def compare(
    a: Mapping[str, Sequence[Problem]], b: Mapping[str, Sequence[Problem]], names: tuple[str, str], *, seed: int = 0
) -> list[Comparison]:
    """Compare the results of two models, each given by data set.

    Raises:
        ConfigError: the models share no data set, or no problem of a shared data set; or a problem has no samples.
    """
    shared = [name for name in a if name in b]
    if not shared:
        raise ConfigError(
            f"--compare: {names[0]} has data sets {', '.join(a)} and {names[1]} has {', '.join(b)}: there is nothing to pair"
        )
    return [_compare(name, a[name], b[name], names, seed) for name in shared]


def _compare(data_set: str, a: Sequence[Problem], b: Sequence[Problem], names: tuple[str, str], seed: int) -> Comparison:
    of_a, of_b = ({(p.id, p.problem): p for p in problems} for problems in (a, b))
    both = [key for key in of_a if key in of_b]
    if not both:
        raise ConfigError(
            f"--compare: no problem of {data_set} has the same id and text in the results of {names[0]} and {names[1]}; "
            "compare results on the same problems"
        )
    for name, of in zip(names, (of_a, of_b), strict=True):
        if empty := [key for key in both if not of[key].samples]:
            raise ConfigError(f"--compare: problem {empty[0][0]!r} of {data_set} has no samples in the results of {name}")
    means = np.array([[np.mean([s.correct for s in of[key].samples]) for key in both] for of in (of_a, of_b)])  # [2, P]
    differences = means[1] - means[0]
    single = all(len(of[key].samples) == 1 for of in (of_a, of_b) for key in both)
    p_value, test = mcnemar(differences) if single else sign_flip(differences, seed=seed)
    return Comparison(
        data_set=data_set,
        a=names[0],
        b=names[1],
        problems=len(both),
        only_a=len(of_a) - len(both),
        only_b=len(of_b) - len(both),
        mean_a=float(means[0].mean()),
        mean_b=float(means[1].mean()),
        difference=estimate(differences.mean(), resampled_means(differences[:, None], seed=seed)[:, 0]),
        p_value=p_value,
        test=test,
    )


def mcnemar(differences: np.ndarray) -> tuple[float, str]:
    """McNemar's exact test for one response per problem (Q. McNemar, Psychometrika 12, 1947): are gains as likely as losses?

    Args:
        differences: [P], each -1, 0 or 1.

    Returns:
        The two-sided p-value and the name of the test.
    """
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    tail = sum(math.comb(gained + lost, i) for i in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2 ** (gained + lost)), "McNemar, exact"


def sign_flip(differences: np.ndarray, *, seed: int) -> tuple[float, str]:
    """Sign-flip permutation test: if the two models were equal, each problem's difference could as well have the other sign.

    With at most 12 nonzero differences, all sign patterns are enumerated. Otherwise 50,000 are drawn, and the observed pattern
    is counted as one of them (Phipson and Smyth, 2010), so that p is never 0.

    Args:
        differences: [P], shares of correct responses of B minus those of A.

    Returns:
        The two-sided p-value and the name of the test.
    """
    nonzero = differences[differences != 0]
    observed, count = abs(nonzero.sum()) - _SAME, len(nonzero)
    if count <= MOST_EXACT:
        signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
        return float(np.mean(abs(signs @ nonzero) >= observed)), "sign flips, exact"
    rng, at_once = np.random.default_rng(seed), max(1, _AT_ONCE // count)
    extreme = 0
    for start in range(0, DRAWS, at_once):
        signs = 1 - 2 * rng.integers(0, 2, (min(at_once, DRAWS - start), count), np.int8)
        extreme += int((abs(signs @ nonzero) >= observed).sum())
    return (1 + extreme) / (1 + DRAWS), f"sign flips, {DRAWS:,} drawn"
