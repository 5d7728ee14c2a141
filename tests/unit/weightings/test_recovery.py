"""How evidence moves λ and γ: bounded, by evidence alone, the same in whatever order it arrives."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import reduce
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.intervals import wilson
from renio_pipeline.weightings.recovery import Evidence, Pace, Rules, decide, observe, sign

RULES = Rules(probes=8)
NONE, MANY = Evidence(trials=40, successes=0), Evidence(trials=200, successes=200)

evidence = st.integers(0, 40).flatmap(
    lambda trials: st.builds(Evidence, trials=st.just(trials), successes=st.integers(0, trials), share=st.floats(0, 1))
)
histories = st.lists(st.lists(evidence, max_size=3), max_size=30)  # of each decision, what arrived before it
rules = st.builds(
    Rules,
    weights_from=st.floats(0, 0.5),
    suffix_from=st.floats(0.5, 1),
    probes=st.integers(1, 40),
    memory=st.floats(0.1, 1),
    move=st.floats(0.01, 1),
)


def after(history: list[list[Evidence]], by: Rules = RULES) -> list[Pace]:
    """The state at first and after each decision."""
    paces = [Pace()]
    for arrived in history:
        paces.append(decide(reduce(observe, arrived, paces[-1]), by))
    return paces


@given(histories, rules)
@settings(deadline=None, derandomize=True)
def test_strength_and_factor_stay_in_their_bounds_and_move_by_one_step_at_most(
    history: list[list[Evidence]], by: Rules
) -> None:
    paces = after(history, by)
    for before, now in pairwise(paces):
        assert 0 <= now.strength <= 1
        assert 0 <= now.after_pivotal <= 1
        assert abs(now.strength - before.strength) <= by.move + 1e-12
        assert abs(now.after_pivotal - before.after_pivotal) <= by.move + 1e-12


@given(histories, rules)
@settings(deadline=None, derandomize=True)
def test_nothing_moves_without_enough_new_evidence(history: list[list[Evidence]], by: Rules) -> None:
    pace = replace(after(history, by)[-1], new_trials=0, new_successes=0)
    few = observe(pace, Evidence(trials=by.probes - 1, successes=0))
    assert decide(pace, by) == pace
    assert decide(few, by) == few


@given(histories, rules)
@settings(deadline=None, derandomize=True)
def test_a_move_is_what_two_decisions_in_a_row_spoke_for(history: list[list[Evidence]], by: Rules) -> None:
    """An independent account of the signs: faded sums over the whole history, with Wilson's interval of each."""
    trials = successes = 0.0
    waiting: list[Evidence] = []
    signs = [(0, 0)]
    paces = after(history, by)
    for arrived, (before, now) in zip(history, pairwise(paces), strict=True):
        waiting += arrived
        if (new := sum(e.trials for e in waiting)) < by.probes:
            assert (now.strength, now.after_pivotal) == (before.strength, before.after_pivotal)
            continue
        trials, successes = trials + new, successes + sum(e.successes for e in waiting)
        low, high = wilson(successes, trials)
        points = [1 if low > t else -1 if high < t else 0 for t in (by.weights_from, by.suffix_from)]
        for name, point, last in zip(("strength", "after_pivotal"), points, signs[-1], strict=True):
            moved = getattr(now, name) - getattr(before, name)
            assert moved * point >= 0
            if point != last or not point:
                assert moved == 0
            elif not 0 < getattr(now, name) < 1:
                assert getattr(now, name) == (point + 1) / 2  # it is at its target
            else:
                assert moved == pytest.approx(point * by.move)
        trials, successes, waiting = trials * by.memory, successes * by.memory, []
        signs.append((points[0], points[1]))


@given(st.lists(evidence, min_size=1, max_size=8), st.randoms(use_true_random=False))
@settings(deadline=None, derandomize=True)
def test_the_order_in_which_evidence_arrives_changes_nothing(arrived: list[Evidence], random: Random) -> None:
    other = random.sample(arrived, len(arrived))
    here, there = (replace(decide(reduce(observe, each, Pace()), RULES), share=0.0) for each in (arrived, other))
    assert here == there


@given(histories, rules)
@settings(deadline=None, derandomize=True)
def test_a_state_survives_json_digit_for_digit(history: list[list[Evidence]], by: Rules) -> None:
    pace = after(history, by)[-1]
    assert Pace.of(json.loads(json.dumps(asdict(pace)))) == pace
    assert Pace.of(None) == Pace()


@given(st.integers(8, 100), st.integers(0, 100), st.integers(0, 100), rules)
@settings(deadline=None, derandomize=True)
def test_more_recovery_never_gives_less_strength_or_a_smaller_factor(trials: int, one: int, two: int, by: Rules) -> None:
    less, more = sorted((min(one, trials), min(two, trials)))
    ends = [after([[Evidence(trials=trials, successes=s)]] * 8, replace(by, probes=1))[-1] for s in (less, more)]
    assert ends[0].strength <= ends[1].strength
    assert ends[0].after_pivotal <= ends[1].after_pivotal


def test_a_teacher_that_never_recovers_takes_the_loss_after_the_pivotal_token_away() -> None:
    paces = after([[NONE]] * 7)
    assert [p.after_pivotal for p in paces] == [1, 1, 0.75, 0.5, 0.25, 0, 0, 0]
    assert {p.strength for p in paces} == {0.0}


def test_a_teacher_that_recovers_from_some_brings_the_weights_and_not_the_loss_after_the_token() -> None:
    some = Evidence(trials=40, successes=6)  # 15 %: above the threshold of λ, below that of γ
    end = after([[some]] * 20)[-1]
    assert (end.strength, end.after_pivotal) == (1.0, 0.0)


def test_a_teacher_that_recovers_from_most_brings_both() -> None:
    end = after([[NONE]] * 6 + [[MANY]] * 30)[-1]
    assert (end.strength, end.after_pivotal) == (1.0, 1.0)


def test_one_decision_alone_moves_nothing_and_the_next_must_agree() -> None:
    rules = replace(RULES, memory=0.01)  # each decision sees its own evidence
    paces = after([[NONE], [MANY], [NONE], [MANY]], rules)
    assert {(p.strength, p.after_pivotal) for p in paces} == {(0.0, 1.0)}


def test_an_interval_that_holds_the_threshold_points_nowhere() -> None:
    assert [sign(0.1, 0.3, t) for t in (0.05, 0.1, 0.2, 0.3, 0.4)] == [1, 0, 0, 0, -1]
