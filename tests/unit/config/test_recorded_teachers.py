"""What a recorded teacher may be asked for, what can be recorded, and what is refused with the key to change."""

from __future__ import annotations

from typing import Any

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.config.teacher_writing import check_teachers_write, teachers_write
from renio_pipeline.config.teachers.recorded_teachers import check_live
from renio_pipeline.metrics.registry import METRICS
from renio_pipeline.objectives.sampled import Sampled
from renio_pipeline.objectives.trained import trained_objective
from renio_pipeline.probe.setting import probing, recording
from tests.unit.conftest import make_config

RECORDED = {"type": "recorded", "path": "scores"}
TOP_K = {"type": "top_k_forward_kl", "k": 4}
FOUR = {"samples_per_prompt": 4}
SAMPLED = {"type": "sampled"}
REASONS = {"type": "opd", "privileged": True, "reason_first": True}


def config_of(teacher: dict[str, Any] | None = None, **changes: Any) -> Any:
    return make_config(**{"teacher": RECORDED | (teacher or {}), "objective": TOP_K} | changes)


def test_a_recorded_teacher_has_no_pool_and_writes_nothing() -> None:
    config = config_of()
    assert config.recorded_teachers.keys() == {""}
    assert config.pool_names == ["generator", "trainer", "weighting"]
    assert (config.live_teachers, config.teacher_pools, teachers_write(config)) == ({}, {}, False)
    assert config.teacher_label().startswith("recorded in ")
    with pytest.raises(ValueError, match=r"a text: a recorded teacher writes nothing; set teacher\.type=vllm"):
        check_teachers_write(config, "a text")


def test_without_an_evaluation_a_run_from_recordings_alone_starts_no_generator() -> None:
    config = config_of(evaluate={"problems": 0})
    assert (config.writes, config.generates, config.pool_names) == (False, False, ["trainer", "weighting"])
    mixed = {"maths": {"model": "embedded:teacher"}, "code": RECORDED}
    config = make_config(teacher={}, teachers=mixed, objective=TOP_K, evaluate={"problems": 0})
    assert (config.writes, "generator" in config.pool_names) == (True, True)


@pytest.mark.parametrize(
    "keys",
    [
        {"tensor_parallel": 2, "separate_process": True, "engine": {"max_num_seqs": 2}, "max_batch_tokens": 99},
        {"adapter": "/a", "end_tokens": {"a": "b"}},
        {"attention": "flash_attention_2", "dtype": "float32"},
        {"urls": ["http://a:1"], "api": "openai", "key_env": "KEY"},
    ],
)
def test_the_configuration_that_was_recorded_trains_with_two_overrides(keys: dict[str, Any]) -> None:
    config = config_of(keys)
    assert config.recorded_teachers.keys() == {""}
    assert config.teacher_pools == {}


def test_some_of_several_teachers_may_be_recorded() -> None:
    teachers = {"maths": {"model": "embedded:teacher"}, "code": RECORDED}
    config = make_config(teacher={}, teachers=teachers, objective=TOP_K)
    assert config.teacher_pools == {"maths": "teacher.maths"}
    assert config.recorded_teachers.keys() == {"code"}
    assert config.teacher_label("maths") == "embedded:teacher"


def test_sampled_corrects_towards_the_student_that_wrote_the_responses() -> None:
    live = make_config(objective={"type": "sampled"})
    assert trained_objective(live).importance_clip is None  # type: ignore[attr-defined]
    assert trained_objective(config_of(objective={"type": "sampled"})).importance_clip == 2  # type: ignore[attr-defined]
    assert "or recorded responses" in str(Sampled.model_fields["importance_clip"].description)
    assert "recorded" in METRICS["off_policy/fraction"][1]


FLOAT32: dict[str, Any] = {"generator": {"dtype": "float32"}, "trainer": {"dtype": "float32"}}


@pytest.mark.parametrize(
    ("teacher", "changes", "text"),
    [
        ({"path": None}, {}, r"teacher\.path: required by type recorded; give the folder that renio score wrote"),
        ({"type": "vllm", "model": "m"}, {}, r"teacher\.path is a key of recorded teachers: set teacher\.type=recorded"),
        ({"tokenizer": "own"}, {"objective": SAMPLED}, r"teacher\.tokenizer: recordings are in the student's"),
        ({}, {"objective": {"type": "jsd"}}, r"teacher\.type: objective jsd needs .* set objective\.type=top_k_forward_kl"),
        ({}, {"method": REASONS}, r"teacher\.type: method\.reason_first"),
        ({}, {"method": {"type": "opsd", "teacher": "ema"}, "student": "embedded:teacher"}, r"follows the student"),
        ({}, {"data": {"off_policy": {"share": 0.5}}}, r"teacher\.type: .*leave data\.off_policy out"),
        ({}, {"reward": {"coefficient": 0.5, "baseline": "batch"}}, r"teacher\.type: rewards are for what the student"),
        ({}, {"placement": "colocated", "evaluate": {"problems": 0}}, r"teacher\.type: with placement colocated generators"),
        ({}, {"filter": "incorrect"}, r"teacher\.type: filter incorrect needs verdicts"),
        ({}, {"weighting": {"type": "paced"}, **FOUR}, r"weighting paced needs verdicts"),
        ({}, {"weighting": {"type": "adaptive", "signal": "probe"}}, r"weighting\.signal probe: a recorded teacher goes on"),
    ],
)  # fmt: skip
def test_what_a_recording_cannot_give_is_refused(teacher: dict[str, Any], changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        config_of(teacher, **changes)


def test_combine_of_a_recorded_teacher_is_refused() -> None:
    teachers = {"a": {"model": "embedded:teacher"}, "b": RECORDED}
    with pytest.raises(ConfigError, match=r"teachers\.b\.type: combine mixes .* set combine=null, or teachers\.b\.type=vllm"):
        make_config(teacher={}, teachers=teachers, combine={"a": 1, "b": 1}, objective=TOP_K)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"teacher": RECORDED, "objective": TOP_K}, r"teacher\.type: renio score needs a teacher that answers"),
        ({"objective": {"type": "jsd"}}, r"objective\.type: objective jsd needs .* so they are not recorded"),
        ({"method": {"type": "grpo"}, "teacher": {}, **FOUR}, r"method\.type: grpo learns from no teacher"),
        ({"method": {"type": "opsd", "teacher": "ema"}, "student": "embedded:teacher", "teacher": {}, "objective": TOP_K},
         r"method\.teacher: ema follows the student"),
        ({"method": REASONS, "objective": TOP_K}, r"method\.reason_first: renio score"),
        ({"data": {"off_policy": {"share": 0.5}}, "objective": TOP_K}, r"data\.off_policy: renio score has the"),
        ({"teacher": {"model": "embedded:teacher", "tokenizer": "own"}, "objective": SAMPLED}, r"teacher\.tokenizer: "),
    ],
)  # fmt: skip
def test_what_cannot_be_recorded_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        recording(make_config(**changes))


def test_recording_changes_nothing_of_what_is_recorded() -> None:
    given = make_config(objective=TOP_K, filter="incorrect", max_staleness=2, **FLOAT32)
    made = recording(given)
    assert (made.objective, made.sampling, made.temperature, made.seed) == (
        given.objective,
        given.sampling,
        given.temperature,
        given.seed,
    )
    assert made.max_staleness == 0


def test_commands_that_ask_a_teacher_refuse_a_recorded_one() -> None:
    with pytest.raises(
        ConfigError, match=r"teacher\.type: renio probe needs a teacher that answers, .* set teacher\.type=vllm"
    ):
        probing(config_of())
    with pytest.raises(ConfigError, match="renio arms needs a teacher"):
        check_live(config_of(), "renio arms")
