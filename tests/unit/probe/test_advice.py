"""The table of rules from findings to a weighting, and when there is no advice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from renio_pipeline.config import load
from renio_pipeline.config.schema import Pivotal
from renio_pipeline.probe.advice import ENTRY_CLIP, FEW, HARD, RACE, SOFT, Setting, advise
from renio_pipeline.probe.results import Mismatch, Recovery
from renio_pipeline.probe.setting import probing
from renio_pipeline.weightings.recovery import Rules, sign
from tests.unit.probe.made_up import findings, of, recovery
from tests.unit.test_documents import ROOT

RENIO = Setting(weighting="renio", pivotal=Pivotal())


@pytest.mark.parametrize(
    ("given", "gamma", "known", "race"),
    [
        pytest.param(recovery(0.98, 0.01), 0.0, HARD, False, id="hardly ever recovers"),
        pytest.param(recovery(0.98, 0.20), 0.0, SOFT, True, id="often recovers"),
        pytest.param(recovery(0.995, 0.95, half=0.01), 1.0, SOFT, True, id="recovers from nearly all"),
        pytest.param(recovery(0.98, 0.06), 0.0, (*HARD, *SOFT), False, id="undecided"),
        pytest.param(recovery(0.90, 0.90), 1.0, (), False, id="the pivotal token does no harm"),
        pytest.param(recovery(0.03, 0.02), 1.0, (), False, id="answers from neither side"),
    ],
)
def test_the_recovery_decides(given: Recovery, gamma: float, known: tuple[str, ...], race: bool) -> None:
    found = advise(findings(recovery=given), RENIO)
    assert (found.weighting, found.after_pivotal, found.strength) == ("uniform", gamma, 0.0)
    assert found.overrides == ["weighting.type=uniform", f"weighting.after_pivotal={gamma:g}"]
    assert (RACE in found.reason) == race
    assert [line for line in found.evidence if line in (*HARD, *SOFT)] == list(known)
    assert given.after is not None
    assert f"{100 * given.after.value:.1f} %" in found.reason


def test_kinds_of_errors_are_told_apart_where_the_task_does() -> None:
    """The study's recoveries are of slips alone."""
    slips = replace(recovery(0.98, 0.21), group="wrong: slipped")
    found = advise(findings(recovery=recovery(0.98, 0.10), groups=[recovery(), slips]), RENIO)
    assert "correctly (slipped 21.0 % [18.0, 24.0]), 98.0 %" in found.reason
    assert "slips alone" in found.evidence[-1]
    assert "slipped" not in advise(findings(groups=[recovery()]), RENIO).reason


def test_gamma_goes_where_the_adaptive_weighting_moves_it() -> None:
    rules = Rules()
    for after in (0.01, 0.1, 0.4, 0.8, 0.95):
        given = recovery(0.995, after, half=0.005)
        assert given.after is not None
        found = advise(findings(recovery=given), RENIO)
        assert found.after_pivotal == max(0, sign(given.after.low, given.after.high, rules.suffix_from)), after


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"student_accuracy": None, "right": 0, "wrong": 0, "recovery": None}, "the task gives no verdicts"),
        ({"wrong": FEW - 1}, "7 of 256 responses are wrong, too few"),
        ({"right": 0}, "0 of 256 responses are right, too few"),
        ({"recovery": None}, "from 0 wrong responses with a pivotal token"),
        ({"recovery": recovery(prefixes=FEW - 1)}, "from 7 wrong responses with a pivotal token"),
        ({"teacher_accuracy": of(0.2)}, "choose another teacher"),
    ],
)
def test_what_says_nothing_gives_no_advice_and_says_why(changes: dict[str, Any], text: str) -> None:
    found = advise(findings(**changes), RENIO)
    assert found.weighting is found.after_pivotal is found.strength is None
    assert found.overrides == found.evidence == []
    assert text in found.reason


@pytest.mark.parametrize(
    ("mean", "threshold", "caution"),
    [(0.01, 0.8, None), (0.5, 1.0, "raise the threshold to 1, or"), (0.013, 0.026, "raise"), (1.4, 0.8, "student_logprobs")],
)
def test_a_mismatch_above_half_the_threshold_raises_it(mean: float, threshold: float, caution: str | None) -> None:
    before = 0.02 if mean == 0.013 else 0.8
    setting = Setting(weighting="renio", pivotal=Pivotal(threshold=before))
    mismatch = Mismatch(mean=of(mean), largest=2.0, flipped=None)
    found = advise(findings(mismatch=mismatch, recovery=recovery(0.98, 0.3)), setting)
    assert found.threshold == pytest.approx(threshold)
    assert bool(found.cautions) == (caution is not None)
    assert caution is None or caution in found.cautions[0]
    changed = [key for key in found.overrides if "threshold" in key]
    assert changed == ([f"diagnostics.threshold={threshold:g}"] if threshold != before else [])


def test_a_threshold_of_ones_own_moves_with_the_weighting() -> None:
    own = Pivotal(threshold=0.3)
    moved = advise(findings(), Setting(weighting="renio", pivotal=own))
    assert moved.overrides[-1] == "diagnostics.threshold=0.3"  # uniform weights have none themselves
    kept = advise(findings(), Setting(weighting="uniform", pivotal=own))
    assert "threshold" not in " ".join(kept.overrides)


def test_the_papers_entry_clip_is_told_of() -> None:
    assert ENTRY_CLIP in advise(findings(), Setting(weighting="renio", pivotal=Pivotal(), entry_clip=True)).evidence
    assert Setting.of(load(ROOT / "configs/paper/qwen3-1.7b-opd.yaml")).entry_clip
    assert not Setting.of(load(ROOT / "configs/demo.yaml")).entry_clip


def test_a_probe_of_the_papers_settings_asks_teachers_that_can_write() -> None:
    given = load(ROOT / "configs/paper/qwen3-4b-opsd.yaml")
    config, notes = probing(given)
    assert config.objective.type == "top_k_forward_kl"
    (note,) = notes
    assert "top_k_forward_kl, k = 32, not of jsd" in note
    assert config.pools.trainer.replicas == 1
    assert config.follow is None
    assert (config.student, config.sampling, config.temperature) == (given.student, given.sampling, given.temperature)
