"""The metrics of a model on one data set from n responses per problem, each with its bootstrap interval."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from renio_pipeline.evaluation.bootstrap import Estimate, estimate, resampled_means
from renio_pipeline.evaluation.records import Problem

Metrics = dict[str, Estimate]


def measure(problems: Sequence[Problem], ks: Sequence[int], *, seed: int) -> Metrics:
    """The metrics of a data set whose problems all have n responses, with n at least as large as every k.

    ``avg@n``: mean over problems of the share of correct responses. ``pass@k``: see ``pass_at_k``. ``majority@n``: see
    ``majority``. ``response_tokens``: mean length. ``truncated``: the share that the token limit cut off.
    ``markers_per_1k_tokens``: reflection markers per thousand tokens of all responses.
    """
    n = len(problems[0].samples)
    assert {len(p.samples) for p in problems} == {n}, "every problem must have the same number of responses"
    correct = np.array([[s.correct for s in p.samples] for p in problems])  # [P, n]
    tokens = np.array([[s.tokens for s in p.samples] for p in problems])
    columns: dict[str, np.ndarray] = {f"avg@{n}": correct.mean(1)}
    columns |= {f"pass@{k}": pass_at_k(correct.sum(1), n, k) for k in ks}
    if n > 1:
        columns[f"majority@{n}"] = np.array([majority(p) for p in problems])
    columns["response_tokens"] = tokens.mean(1)
    columns["truncated"] = np.array([np.mean([s.stop_reason == "length" for s in p.samples]) for p in problems])
    markers = np.array([sum(sum(s.markers.values()) for s in p.samples) for p in problems])
    table = np.column_stack([*columns.values(), markers, tokens.sum(1)]).astype(float)
    drawn, means = resampled_means(table, seed=seed), table.mean(0)
    found = {name: estimate(means[i], drawn[:, i]) for i, name in enumerate(columns)}
    per_1k = 1000 * drawn[:, -2] / np.maximum(drawn[:, -1], 1e-9)  # no tokens, no markers
    found["markers_per_1k_tokens"] = estimate(1000 * means[-2] / max(means[-1], 1e-9), per_1k)
    return found


def pass_at_k(correct: np.ndarray, n: int, k: int) -> np.ndarray:
    """The chance that k of a problem's n responses, drawn without replacement, include a correct one: 1 - C(n-c, k) / C(n, k).

    An unbiased estimate of the chance for k fresh responses (Chen et al., arXiv 2107.03374, section 2.1).

    Args:
        correct: [P] int, the number c of correct responses of each problem.
        n: responses per problem.

    Returns:
        [P] float64 in [0, 1].

    Raises:
        ValueError: k is larger than n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} responses per problem, but there are {n}")
    by_count = np.array([1 - math.comb(n - c, k) / math.comb(n, k) for c in range(n + 1)])
    chances: np.ndarray = by_count[correct]
    return chances


def majority(problem: Problem) -> float:
    """Whether the most frequent final answer is correct, 0 or 1; for tied answers, the share of correct ones among the tied.

    An unfinished response has no vote.
    """
    votes: defaultdict[str, list[bool]] = defaultdict(list)
    for sample in problem.samples:
        if sample.answer is not None and sample.verdict != "unfinished":
            votes[sample.answer].append(sample.correct)
    most = max(map(len, votes.values()), default=0)
    return float(np.mean([np.mean(v) for v in votes.values() if len(v) == most])) if votes else 0.0


def marker_counts(problems: Sequence[Problem]) -> dict[str, int]:
    """How often each reflection marker occurs in all responses, the most frequent first."""
    total: Counter[str] = Counter()
    for problem in problems:
        for sample in problem.samples:
            total.update(sample.markers)
    return dict(total.most_common())
