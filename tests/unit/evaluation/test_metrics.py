"""What n responses a problem say: the metrics, and how far their intervals can be trusted."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.evaluation.bootstrap import interval, resampled_means
from renio_pipeline.evaluation.metrics import majority, marker_counts, measure, pass_at_k
from renio_pipeline.evaluation.records import Problem, Sample


def sample(answer: str | None = "1", verdict: str = "correct", tokens: int = 10, **more: object) -> Sample:
    values = {"stop_reason": "stop", "response": "…", **more}
    return Sample(answer=answer, verdict=verdict, tokens=tokens, **values)  # type: ignore[arg-type]


def problem(*samples: Sample, name: str = "p") -> Problem:
    return Problem(id=name, problem=name, gold="1", samples=samples)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_pass_at_k_is_the_share_of_all_choices_of_k_responses_with_a_correct_one(
    correct: list[bool], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(correct)))
    choices = list(combinations(correct, k))
    expected = sum(any(choice) for choice in choices) / len(choices)
    assert pass_at_k(np.array([sum(correct)]), len(correct), k) == pytest.approx([expected], abs=1e-12)


def test_pass_at_k_is_unbiased_for_k_fresh_responses() -> None:
    chance, n, k = 0.3, 8, 4
    correct = np.random.default_rng(0).binomial(n, chance, 200_000)
    assert pass_at_k(correct, n, k).mean() == pytest.approx(1 - (1 - chance) ** k, abs=3e-3)


@pytest.mark.parametrize("k", [0, 3])
def test_pass_at_more_than_there_are_responses_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"pass@{k}"):
        pass_at_k(np.array([1]), 2, k)


def test_the_bootstraps_interval_covers_the_truth_19_times_of_20() -> None:
    """300 data sets of 100 problems of varying difficulty, 4 responses each, of which the true mean is known."""
    rng, covered, runs = np.random.default_rng(1), 0, 300
    for seed in range(runs):
        chances = rng.beta(0.8, 1.2, 100)  # mean 0.4
        shares = rng.binomial(4, chances) / 4
        low, high = interval(resampled_means(shares[:, None], seed=seed, resamples=500)[:, 0])
        covered += low <= 0.4 <= high
    assert 0.90 <= covered / runs <= 0.98


def test_the_interval_of_samples_that_are_alike_is_as_wide_as_of_one() -> None:
    """Copies of a response are no further evidence: problems are drawn, not samples."""
    shares = np.repeat([0.0, 1.0], 20)
    once = [problem(sample(verdict="correct" if s else "incorrect")) for s in shares]
    often = [problem(*p.samples * 16) for p in once]
    wide, same = measure(once, [], seed=0)["avg@1"], measure(often, [], seed=0)["avg@16"]
    assert (same.low, same.high) == (wide.low, wide.high)
    assert wide.high - wide.low > 0.25


def test_resamples_repeat_by_seed_also_where_they_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = np.random.default_rng(0).random((7, 2))
    whole = resampled_means(columns, seed=3, resamples=50)
    assert whole.shape == (50, 2)
    assert np.array_equal(whole, resampled_means(columns, seed=3, resamples=50))
    monkeypatch.setattr("renio_pipeline.evaluation.bootstrap._AT_ONCE", 30)  # 4 resamples at a time
    assert np.allclose(whole, resampled_means(columns, seed=3, resamples=50))


def test_the_metrics_of_a_data_set() -> None:
    problems = [
        problem(sample("1", tokens=10, markers={"wait": 2}), sample("2", "incorrect", 30), sample("2", "incorrect", 20)),
        problem(sample("1"), sample("1"), sample(None, "unfinished", 30, stop_reason="length", markers={"hmm": 1})),
    ]
    found = {name: estimate.value for name, estimate in measure(problems, [1, 2], seed=0).items()}
    assert found == pytest.approx(
        {
            "avg@3": (1 / 3 + 2 / 3) / 2,
            "pass@1": 0.5,
            "pass@2": (2 / 3 + 1) / 2,
            "majority@3": 0.5,
            "response_tokens": (20 + 50 / 3) / 2,
            "truncated": 1 / 6,
            "markers_per_1k_tokens": 1000 * 3 / 110,
        }
    )
    assert marker_counts(problems) == {"wait": 2, "hmm": 1}
    assert all(e.low <= e.value <= e.high for e in measure(problems, [1, 2], seed=0).values())


def test_a_majority_needs_more_votes_than_any_other_answer_and_a_tie_is_drawn() -> None:
    right, wrong, other = sample("1"), sample("2", "incorrect"), sample("3", "incorrect")
    assert majority(problem(right, right, wrong)) == 1
    assert majority(problem(right, wrong, wrong)) == 0
    assert majority(problem(right, wrong)) == 0.5
    assert majority(problem(right, wrong, other)) == pytest.approx(1 / 3)


def test_a_response_without_an_answer_or_cut_has_no_vote() -> None:
    cut = sample("2", "unfinished", stop_reason="length")
    silent = sample(None, "unfinished")
    assert majority(problem(sample("1"), cut, cut, silent, silent)) == 1
    assert majority(problem(cut, silent)) == 0


def test_a_problems_line_reads_back_as_it_was() -> None:
    written = problem(sample("½", response="a\nb\u2028", markers={"wait": 1}), sample(None, "unfinished"))
    assert written.line().count("\n") == 1
    assert Problem.parse(written.line()) == written
