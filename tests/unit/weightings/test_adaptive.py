"""The weighting ``adaptive``: uniform at first, ReNIO's with the λ and γ of its state, and what it refuses."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.metrics.registry import METRICS
from renio_pipeline.preflight import prepare
from renio_pipeline.weightings.adaptive import Adaptive, fall_after
from renio_pipeline.weightings.recovery import Evidence, Pace, Rules
from renio_pipeline.weightings.renio import Renio
from renio_pipeline.weightings.uniform import Uniform
from tests.unit.conftest import make_config
from tests.unit.weightings.test_weightings import BATCH, weigh

OPENAI = {"model": "embedded:teacher", "type": "http", "api": "openai", "urls": ["http://node:1"]}
SCORES = {"fall": 0.3, "weights_from": 0.4, "suffix_from": 0.6}


def state_of(strength: float, after_pivotal: float) -> dict[str, Any]:
    return {"batches": 3, "pace": asdict(Pace(strength=strength, after_pivotal=after_pivotal)), "renio": None}


def test_it_starts_as_uniform_bit_for_bit() -> None:
    here, there = weigh(Adaptive()), weigh(Uniform())
    assert here.weights.tobytes() == there.weights.tobytes()
    assert here.token_factors is there.token_factors is None


@pytest.mark.parametrize(("strength", "after_pivotal"), [(0.0, 0.0), (0.25, 1.0), (1.0, 0.5)])
def test_it_weighs_as_renio_with_the_strength_and_the_factor_of_its_state(strength: float, after_pivotal: float) -> None:
    found = weigh(Adaptive(), state=state_of(strength, after_pivotal))
    same = weigh(Renio(strength=strength, after_pivotal=after_pivotal))
    assert found.weights.tobytes() == same.weights.tobytes()
    factors = [None if f is None else [row.tolist() for row in f] for f in (found.token_factors, same.token_factors)]
    assert factors[0] == factors[1]
    assert (found.metrics["adaptive/strength"], found.metrics["adaptive/after_pivotal"]) == (strength, after_pivotal)
    assert found.state["batches"] == 4


def test_the_running_mean_of_the_weights_is_part_of_the_state() -> None:
    mine, state, own = Adaptive(normalization="ema"), None, None
    for _ in range(3):
        state = weigh(mine, state=state).state
        own = weigh(Renio(normalization="ema"), state=own).state
        assert state["renio"] == own


def test_evidence_moves_the_state_and_shows_in_registered_metrics() -> None:
    mine = Adaptive(move=0.5)
    state = weigh(mine).state
    for _ in range(2):
        state = mine.learned(state, Evidence(trials=20, successes=0, share=0.125))
    found = weigh(mine, state=state)
    assert found.metrics["adaptive/after_pivotal"] == 0.5
    assert found.metrics["adaptive/share"] == 0.125
    assert found.metrics["adaptive/recovery"] == 0 < found.metrics["adaptive/recovery_high"] < 0.25
    assert {name for name in found.metrics if name.startswith("adaptive/")} == {n for n in METRICS if n.startswith("adaptive/")}
    assert found.token_factors is not None


def test_the_signal_is_due_in_every_kth_batch_from_the_first_one_on() -> None:
    mine, state, due = Adaptive(every=3), None, []
    for _ in range(7):
        state = weigh(mine, state=state).state
        due.append(mine.due(state))
    assert due == [True, False, False, True, False, False, True]


def test_the_fall_is_that_of_the_means_on_both_sides_of_the_first_pivotal_token() -> None:
    teacher = np.concatenate([np.full(40, -9.0), np.full(32, -0.25), [-7.0], np.full(32, -1.0), np.full(5, -9.0)])
    pivotal = np.zeros(len(teacher), bool)
    assert fall_after(teacher, pivotal) is None
    pivotal[[72, 80]] = True
    assert fall_after(teacher, pivotal) == pytest.approx(0.75)
    assert fall_after(teacher[72:], pivotal[72:]) is None  # nothing before it
    assert fall_after(teacher[:73], pivotal[:73]) is None  # nothing after it


def test_scores_count_responses_whose_fall_is_below_the_key() -> None:
    first = Adaptive(signal="scores", **SCORES).evidence(BATCH)  # its pivotal tokens are the first ones of their responses
    assert (first.trials, first.successes) == (0, 0)
    again = Adaptive(signal="scores", threshold=2.5, clip=3, **SCORES)
    assert again.evidence(BATCH).trials == 0


def test_the_keys_are_rules_and_the_thresholds_have_defaults_for_the_signal_probe_alone() -> None:
    assert Adaptive().rules == Rules()
    assert Adaptive(weights_from=0.1, move=0.5).rules == Rules(weights_from=0.1, move=0.5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weighting": {"move": 0}}, "weighting.move"),
        ({"weighting": {"move": 1.5}}, "weighting.move"),
        ({"weighting": {"memory": 0}}, "weighting.memory"),
        ({"weighting": {"share": 0}}, "weighting.share"),
        ({"weighting": {"every": 0}}, "weighting.every"),
        ({"weighting": {"suffix_from": 1.5}}, "weighting.suffix_from"),
        ({"weighting": {"weights_from": 0.95}}, "must not exceed suffix_from"),
        ({"weighting": {"strength": 0.5}}, "weighting.strength"),
        ({"weighting": {"signal": "scores"}}, "needs weighting.fall, weighting.weights_from, weighting.suffix_from"),
        ({"weighting": {"signal": "scores", **SCORES, "fall": None}}, "needs weighting.fall:"),
        ({"weighting": {"signal": "probe"}, "objective": {"type": "jsd"}}, "teacher.type=torch"),
        ({"weighting": {}, "objective": {"type": "jsd"}}, "teacher.type=torch"),
        ({"weighting": {"signal": "probe"}, "teacher": OPENAI}, "set its api to vllm or sglang"),
        ({"weighting": {}, "filter": "correct"}, "filter=all"),
        ({"weighting": {"group_size": 5}}, "must divide batch_size"),
    ],
)
def test_what_cannot_work_is_refused_with_the_key_to_change(changes: dict[str, Any], said: str) -> None:
    weighting = {"type": "adaptive", **changes.pop("weighting")}
    teacher = changes.pop("teacher", {"model": "embedded:teacher", "type": "vllm"})
    with pytest.raises(ConfigError, match=said):
        make_config(
            teacher=teacher, objective=changes.pop("objective", {"type": "top_k_forward_kl"}), weighting=weighting, **changes
        )


def test_a_mixture_of_teachers_has_none_that_could_go_on() -> None:
    teacher = {"model": "embedded:teacher", "type": "torch"}
    mixed = {"teacher": {}, "teachers": {"a": teacher, "b": teacher}, "combine": {"a": 1, "b": 1}}
    for signal in ("probe", "auto"):
        with pytest.raises(ConfigError, match="leave combine out"):
            make_config(**mixed, weighting={"type": "adaptive", "signal": signal})
    config = make_config(**mixed, weighting={"type": "adaptive", **SCORES})
    assert isinstance(config.weighting, Adaptive)
    assert config.weighting.signal_of(config) == "scores"


def test_auto_is_the_probe_where_the_teacher_writes_and_else_the_scores_with_their_keys() -> None:
    found = []
    for kind in ("torch", "vllm"):
        teacher = {"model": "embedded:teacher", "type": kind}
        config = make_config(objective={"type": "jsd"}, teacher=teacher, weighting={"type": "adaptive", **SCORES})
        assert isinstance(config.weighting, Adaptive)
        found.append(config.weighting.signal_of(config))
    assert found == ["probe", "scores"]


def test_rows_without_an_answer_are_refused_unless_the_signal_is_scores(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"problem": "{i}+{i}:"}}\n' for i in range(8)))
    given = {"task": "plain", "data": {"path": str(rows)}, "evaluate": {"problems": 0}, "max_response_tokens": 32}
    with pytest.raises(ConfigError, match=r"weighting: adaptive needs verdicts.* set weighting.signal=scores and its keys"):
        prepare(make_config(**given, weighting={"type": "adaptive"}))
    assert len(prepare(make_config(**given, weighting={"type": "adaptive", "signal": "scores", **SCORES})).rows) == 8
