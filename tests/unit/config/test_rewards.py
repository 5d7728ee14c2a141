"""Configurations that learn from rewards: what they are by default, and what is refused with the key to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.config import ConfigError, RunConfig, load, parse
from renio_pipeline.objectives import NO_TEACHER, SAMPLED
from renio_pipeline.preflight import prepare
from tests.unit.conftest import make_config

ROOT = Path(__file__).parents[3]
GRPO = {"method": {"type": "grpo"}, "teacher": {}, "batch_size": 8, "samples_per_prompt": 4}
REWARD = {"reward": {"coefficient": 0.5}, "batch_size": 8, "samples_per_prompt": 4}


def grpo(**changes: Any) -> RunConfig:
    return make_config(**GRPO | changes)


def test_grpo_has_no_teacher_no_weighting_and_a_loss_of_its_own() -> None:
    config = grpo()
    assert config.all_teachers == config.teacher_pools == {}
    assert config.pool_names == ["generator", "trainer"]
    assert (config.objective.type, config.weighting.type) == ("clipped", "uniform")
    assert config.objective.payload == NO_TEACHER
    assert (config.distils, config.rewarded, config.privileged, config.reason_first) == (False, True, False, None)
    assert (config.passes, grpo(method={"type": "grpo", "passes": 3}).passes) == (1, 3)


def test_a_recorded_grpo_configuration_is_the_same_again() -> None:
    config = grpo(objective={"kl": 0.1, "normalization": "token"}, method={"type": "grpo", "scale": "none"})
    assert parse(config.model_dump(mode="json")) == config
    assert (config.objective.type, config.objective.kl, config.objective.normalization) == ("clipped", 0.1, "token")  # type: ignore[attr-defined]


def test_with_a_divergence_the_first_weights_are_a_pool() -> None:
    config = grpo(objective={"kl": 0.05})
    assert config.objective.payload == SAMPLED
    assert config.pool_names == ["generator", "teacher", "trainer"]
    assert config.teacher_model() == config.student
    assert not config.distils
    assert prepare(config.model_copy(update={"max_response_tokens": 64})).payload_bytes == 0


def test_other_methods_are_what_they_were() -> None:
    config = make_config()
    assert (config.objective.type, config.weighting.type, config.passes) == ("top_k_forward_kl", "renio", 1)
    assert config.pool_names == ["generator", "teacher", "trainer", "weighting"]
    assert not config.rewarded


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples_per_prompt": 1}, r"with samples_per_prompt 1 every advantage is 0; set samples_per_prompt to 4"),
        ({"filter": "incorrect"}, r"filter incorrect keeps one kind alone; set filter=all"),
        ({"sampling": {"temperature": 1.2}}, r"sampling\.temperature \(1\.2\) must equal temperature \(1\.0\)"),
        ({"student_logprobs": "trainer"}, r"leave student_logprobs out"),
        ({"weighting": {"type": "renio"}}, r"weighting renio is made of a teacher's log-prob.*leave the section weighting out"),
        ({"weighting": {"type": "uniform", "after_pivotal": 0.5}}, r"leave the section weighting out"),
        ({"weighting": {"strength": 0.5}}, r"weighting\.strength"),
        ({"reward": {"coefficient": 1}}, r"leave the section reward out, or set method\.type=opd"),
        ({"teacher": {"model": "embedded:teacher"}}, r"teacher: method grpo has no teacher.*leave teacher out"),
        ({"teacher": {}, "teachers": {"a": {"model": "embedded:teacher"}}}, r"teachers: method grpo has no teacher"),
        ({"teacher": {"tokenizer": "own"}}, r"teacher\.tokenizer: with objective\.kl .*leave teacher\.tokenizer out"),
        ({"teacher": {"end_tokens": {"a": "b"}}}, r"teacher\.end_tokens: with objective\.kl"),
        ({"objective": {"type": "jsd"}}, r"objective jsd .*set objective\.type=clipped"),
        ({"method": {"type": "grpo", "privileged": True}}, r"method\.privileged"),
    ],
)
def test_what_grpo_cannot_work_with_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grpo(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples_per_prompt": 1}, r"reward\.baseline group: with samples_per_prompt 1 .*or reward\.baseline=batch"),
        ({"filter": "correct"}, r"filter correct keeps responses of one verdict.*set filter=all"),
        (
            {"reward": {"coefficient": 1, "baseline": "batch", "teacher_when": "unsolved_group"}, "samples_per_prompt": 1},
            r"reward\.teacher_when unsolved_group: with samples_per_prompt 1",
        ),
        (
            {"reward": {"teacher_when": "incorrect"}},
            r"reward\.teacher_when incorrect: the other responses would",
        ),
        ({"reward": {"coefficient": -1}}, r"reward\.coefficient"),
        ({"sampling": {"temperature": 0.9}}, r"sampling\.temperature \(0\.9\) must equal temperature \(1\.0\)"),
        ({"objective": {"type": "clipped"}}, r"objective clipped is the loss of method grpo, and method\.type is opd"),
    ],
)
def test_what_a_reward_cannot_work_with_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(**REWARD | changes)


def test_the_papers_baseline_has_its_settings() -> None:
    config = load([ROOT / "configs/paper/qwen3-1.7b-grpo.yaml"])
    assert (config.steps, config.samples_per_prompt, config.max_response_tokens) == (301, 8, 16000)
    assert config.temperature == config.sampling.temperature == 1.2
    assert config.method.model_dump() == {"type": "grpo", "scale": "group", "passes": 2}
    assert config.objective.payload == NO_TEACHER
    assert config.trainer.lora is not None
    assert (config.trainer.lora.r, config.trainer.lora.alpha) == (64, 128)
    assert config.pool_names == ["generator", "trainer"]


@pytest.mark.parametrize("base", [GRPO, REWARD], ids=["grpo", "reward"])
def test_a_reward_without_a_verifier_is_refused_before_anything_loads(base: dict[str, Any], tmp_path: Any) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"problem": "1+1=", "answer": "2"}\n{"problem": "1+2="}\n', encoding="utf-8")
    config = make_config(task="plain", data={"path": str(file)}, evaluate={"problems": 0}, **base)
    needs = "method: grpo" if base is GRPO else r"reward\.coefficient"
    with pytest.raises(ConfigError, match=rf"^{needs} needs verdicts, and .*line 2.* has no answer that task plain can verify"):
        prepare(config)
