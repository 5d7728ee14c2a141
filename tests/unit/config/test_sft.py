"""Configurations that learn from solutions: what they are by default, and what is refused with the key to change."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from renio_pipeline.config import ConfigError, RunConfig, load, parse
from renio_pipeline.data.solutions import Solutions
from renio_pipeline.models.info import ModelInfo, inspect
from renio_pipeline.objectives import NO_TEACHER
from renio_pipeline.preflight import prepare
from tests.unit.conftest import make_config

ROOT = Path(__file__).parents[3]
SFT: dict[str, Any] = {"method": {"type": "sft"}, "teacher": {}, "data": {"problems": 8}, "max_response_tokens": 64}

HALF: dict[str, Any] = {"data": {"off_policy": {"share": 0.5}}, "objective": {"type": "jsd"}, "max_response_tokens": 64}


def sft(**changes: Any) -> RunConfig:
    return make_config(**SFT | changes)


def test_sft_is_ranks_alone_with_a_loss_of_its_own() -> None:
    config = sft()
    assert config.all_teachers == config.teacher_pools == {}
    assert config.pool_names == ["trainer"]
    assert (config.objective.type, config.objective.normalization) == ("nll", "token")  # type: ignore[attr-defined]
    assert config.objective.payload == NO_TEACHER
    assert (config.on_solutions, config.generates, config.distils, config.rewarded) == (True, False, False, False)
    assert (config.off_policy_share, config.passes, config.evaluate.problems) == (1.0, 1, 0)


def test_an_evaluation_brings_generators_and_nothing_else() -> None:
    assert sft(evaluate={"every": 10}).pool_names == ["trainer"]
    config = sft(evaluate={"problems": 5})
    assert config.generates
    assert config.pool_names == ["generator", "trainer"]
    assert sft(evaluate={"problems": 5}, placement="colocated").placement == "colocated"


def test_a_recorded_configuration_is_the_same_again() -> None:
    config = sft(objective={"normalization": "sample"}, evaluate={"problems": 7})
    assert parse(config.model_dump(mode="json")) == config
    assert (config.objective.type, config.objective.normalization) == ("nll", "sample")  # type: ignore[attr-defined]


def test_without_generators_nothing_of_theirs_is_checked() -> None:
    half = {"deterministic": True, "trainer": {"dtype": "float32"}, "generator": {"dtype": "bfloat16"}}
    assert sft(**half).deterministic
    with pytest.raises(ConfigError, match=r"deterministic needs generator\.dtype"):
        sft(**half, evaluate={"problems": 5})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"teacher": {"model": "embedded:teacher"}},
            r"teacher: method sft has no teacher; leave it out \(teacher\.model",
        ),
        ({"teacher": {"type": "http", "urls": ["http://a:1"]}}, r"teacher: method sft has no teacher"),
        ({"teachers": {"a": {"model": "embedded:teacher"}}}, r"teachers: method sft has no teacher"),
        ({"weighting": {"type": "renio"}}, r"weighting renio is made of a teacher's log-prob.*leave the section weighting out"),
        ({"weighting": {"type": "uniform", "after_pivotal": 0.5}}, r"leave the section weighting out"),
        (
            {"objective": {"type": "jsd"}},
            r"objective jsd learns from a teacher, and .*set objective\.type=nll.* method\.type=opd",
        ),
        ({"objective": {"type": "top_k_forward_kl"}}, r"objective top_k_forward_kl learns from a teacher"),
        ({"objective": {"type": "clipped"}}, r"objective clipped needs responses by the student"),
        ({"objective": {"type": "clipped", "kl": 0.1}}, r"objective clipped needs responses by the student"),
        ({"reward": {"coefficient": 1}}, r"reward\.coefficient: rewards judge.*set method\.type=grpo"),
        ({"data": {"off_policy": {"share": 0.5}}}, r"data\.off_policy\.share is the part of a distillation's batch"),
        ({"filter": "incorrect"}, r"filter incorrect chooses .*set filter=all"),
        ({"samples_per_prompt": 4, "batch_size": 8}, r"samples_per_prompt \(4\): a row has one solution"),
        ({"temperature": 1.1}, r"temperature \(1\.1\) would divide the logits"),
        ({"student_logprobs": "trainer"}, r"student_logprobs: log-probabilities are for weights"),
        ({"max_staleness": 1}, r"max_staleness \(1\) lets generators write ahead"),
        ({"placement": "colocated"}, r"placement colocated: without evaluate\.problems"),
        ({"method": {"type": "sft", "passes": 2}}, r"method\.passes"),
    ],
)
def test_what_sft_cannot_work_with_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sft(**changes)


def test_its_loss_is_no_other_methods() -> None:
    with pytest.raises(ConfigError, match=r"objective nll is the loss of method sft, and method\.type is opd"):
        make_config(objective={"type": "nll"})
    with pytest.raises(ConfigError, match=r"objective nll does not learn from rewards"):
        make_config(method={"type": "grpo"}, teacher={}, samples_per_prompt=4, objective={"type": "nll"})


def test_rows_without_a_solution_are_refused_before_anything_loads(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"problem": "1+1=", "solution": "2"}\n{"problem": "1+2=", "solution": " "}\n', encoding="utf-8")
    config = sft(task="plain", data={"path": str(file)})
    with pytest.raises(ConfigError, match=r"^data\.path: .*line 2.* has no solution, which method sft trains on .*fields"):
        prepare(config, inspect=lambda name, key: pytest.fail("a model was read"))


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        (SFT | {"data": {}}, r"^method\.type sft: .* leave that row out$"),
        (HALF, r"^data\.off_policy: .* or choose a teacher whose vocabulary"),
    ],
    ids=["sft", "off-policy"],
)
def test_a_solution_with_a_token_that_a_model_lacks_is_refused_before_anything_loads(
    tmp_path: Path, changes: dict[str, Any], advice: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": "a", "problem": "1+1=", "solution": "2"}\n{"id": "b", "problem": "1+2=", "solution": "~"}\n')
    data = {"path": str(file), **changes["data"]}
    config = make_config(**changes | {"task": "plain", "data": data, "evaluate": {"problems": 0}})

    def smaller(name: str, key: str) -> ModelInfo:
        return replace(inspect(name, key), vocab_rows=90)

    with pytest.raises(
        ConfigError, match="the solution of row 'b' has token id 95, but the smallest of the models' output"
    ) as e:
        prepare(config, inspect=smaller)
    assert re.search(advice, str(e.value))


def test_a_tokenizer_without_an_end_token_would_teach_no_end() -> None:
    tokenizer: Any = SimpleNamespace(eos_token_id=None)
    with pytest.raises(ConfigError, match=r"a student that learns from solutions would never learn to stop; .* one$"):
        Solutions(tokenizer, most=8, vocab_size=9, key="method.type sft")


def test_a_user_is_told_how_many_epochs_the_steps_are() -> None:
    assert "6 steps of 4 are 3 epochs of 8 problems" in prepare(sft(steps=6, batch_size=4)).notes


def test_the_papers_baseline_has_its_settings() -> None:
    config = load([ROOT / "configs/paper/qwen3-1.7b-sft.yaml"])
    assert (config.trainer.lr, config.batch_size, config.steps * config.batch_size) == (5e-6, 32, 4 * 30_000)
    assert config.pool_names == ["trainer"]
    assert config.pools.trainer.gpus * config.pools.trainer.replicas == 8
