"""Models of ten families, as student and as teacher, against a plain run of the same model by transformers; or refused by name.

The same models under real engines: ``python -m tests.families``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.grading.grader import Grader
from renio_pipeline.in_process import in_process_stages
from renio_pipeline.loop.selection import Selection
from renio_pipeline.loop.step import train_step
from renio_pipeline.models import packed_attention
from renio_pipeline.models.heads import load_head
from renio_pipeline.models.info import check_lora_targets, inspect
from renio_pipeline.models.self_checks import check_head, check_packing, check_teacher
from renio_pipeline.models.student import TokenLogits, micro_batch_loss, sampled_logprobs
from renio_pipeline.models.teacher import Scorer
from renio_pipeline.objectives.payload import from_numpy
from renio_pipeline.objectives.projection import token_logprobs
from renio_pipeline.objectives.sampled import Sampled
from renio_pipeline.planning.sizes import sizes_of
from renio_pipeline.preflight import prepare
from renio_pipeline.stages.outcomes import StepResult
from renio_pipeline.types import FIRST_VERSION, Hidden, ScoreRequest, ScorerSpec, TrainSample
from tests.families.models import CONTEXT, FAMILIES, VOCAB, make, save
from tests.unit.conftest import make_config

CPU, TEMPERATURE = torch.device("cpu"), 1.3
MIXES = {"falcon"}  # packed sequences see each other in its own attention
LORA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NO_LORA = {
    "qwen3-moe": "'gate_proj' matches no linear module .*; the linear modules are k_proj, o_proj, q_proj, v_proj",
    "phi": "'o_proj' matches no linear module .*; the linear modules are dense, fc1, fc2, k_proj, q_proj, v_proj",
    "gpt2": "'q_proj' matches no linear module .*; it has none; leave trainer.lora out",
    "falcon": "'q_proj' matches no linear module .* dense, dense_4h_to_h, dense_h_to_4h, query_key_value",
}
each_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("families")
    return {name: str(save(name, place / name)) for name in FAMILIES}


def samples() -> list[TrainSample]:
    rng = np.random.default_rng(0)
    return [
        TrainSample(
            sample_id=i,
            prompt_ids=rng.integers(2, VOCAB, prompt).astype(np.int32),
            response_ids=rng.integers(2, VOCAB, response).astype(np.int32),
            student_logprobs=np.full(response, -3.0, np.float32),
            teacher_logprobs=rng.normal(-3, 1, response).astype(np.float32),
            weight=1.0 + i,
        )
        for i, (prompt, response) in enumerate([(3, 9), (20, 40), (5, 1), (1, 12), (8, 0)])
    ]


def stock(lm: Any, sample: TrainSample | ScoreRequest) -> torch.Tensor:
    """[T] log-probabilities of a response by transformers alone, one sequence at a time."""
    ids = torch.tensor(np.concatenate([sample.prompt_ids, sample.response_ids])).long()
    logits = lm(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], use_cache=False).logits[0].float()
    start = len(sample.prompt_ids)
    return torch.log_softmax(logits[start - 1 : -1] / TEMPERATURE, -1).gather(1, ids[start:, None])[:, 0]


def student(family: str, *, packing: bool) -> TokenLogits:
    """As a rank builds it: in training mode."""
    model = TokenLogits(make(family)).train()
    check_head(model, CPU)
    if packing:
        packed_attention.use(model.lm)
        check_packing(model, CPU)
    return model


@each_family
def test_the_planner_counts_its_parameters(family: str, folders: dict[str, str]) -> None:
    lm = make(family)
    found = sizes_of(family, json.loads(Path(folders[family], "config.json").read_text()))
    assert found.parameters == sum(p.numel() for p in lm.parameters())
    assert (found.layers, found.hidden, found.vocab, found.queries) == (2, 64, VOCAB, 64)
    assert found.key_heads == (2 if family == "gpt2" else 1)
    assert found.mlp == {"gpt2": 256, "falcon": 256, "qwen3-moe": 64}.get(family, 96)


@each_family
def test_it_is_read_without_its_weights_and_takes_factors_or_says_where_there_are_none(
    family: str, folders: dict[str, str]
) -> None:
    found = inspect(folders[family], "student")
    assert (found.vocab_rows, found.context, found.hidden_size) == (VOCAB, CONTEXT, 64)
    assert found.unknown_scale is None
    if family not in NO_LORA:
        check_lora_targets(folders[family], LORA)
        return
    with pytest.raises(ConfigError, match=NO_LORA[family]):
        check_lora_targets(folders[family], LORA)


@each_family
@pytest.mark.parametrize("packing", [False, True], ids=["a row each", "packed"])
def test_the_student_has_the_log_probabilities_and_gradients_of_the_plain_model(family: str, packing: bool) -> None:
    if packing and family in MIXES:
        with pytest.raises(ConfigError, match=r"^student: Falcon.* mixes sequences .*; set trainer\.packing to false"):
            student(family, packing=True)
        return
    model, batch = student(family, packing=packing), samples()
    found = sampled_logprobs(model, batch, temperature=TEMPERATURE, vocab_size=VOCAB, packing=packing)
    lm = make(family)
    for sample in batch:
        np.testing.assert_allclose(found[sample.sample_id], stock(lm, sample).detach().numpy(), atol=3e-5)
    options: dict[str, Any] = {"objective": Sampled(importance_clip=None), "batch_size": len(batch), "temperature": TEMPERATURE}
    options["batch_tokens"] = sum(len(s.response_ids) for s in batch)
    micro_batch_loss(model, batch, {}, vocab_size=VOCAB, packing=packing, **options).loss.backward()
    plain_loss(lm, batch).backward()
    for (name, ours), theirs in zip(model.lm.named_parameters(), lm.parameters(), strict=True):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        error = (ours.grad - theirs.grad).norm() / theirs.grad.norm().clamp_min(1e-6)
        assert error < 2e-3, f"{name}: {error}"


def plain_loss(lm: Any, batch: Sequence[TrainSample]) -> torch.Tensor:
    """The sampled objective without importance ratios: -(log p_T - log p_S) · log p_S of each token."""
    total = torch.zeros(())
    for sample in batch:
        if len(sample.response_ids):
            now = stock(lm, sample)
            tokens = -(torch.tensor(sample.teacher_logprobs) - now.detach()) * now
            total = total + sample.weight / (len(batch) * len(sample.response_ids)) * tokens.sum()
    return total


@each_family
def test_the_torch_teacher_scores_as_the_plain_model_and_its_head_is_read_from_the_file(
    family: str, folders: dict[str, str]
) -> None:
    spec = ScorerSpec(
        model=folders[family], dtype="float32", temperature=TEMPERATURE, vocab_size=VOCAB, kind="hidden", attention="sdpa"
    )
    if family in MIXES:
        with pytest.raises(ConfigError, match=r"^teacher\.model: Falcon.* mixes sequences .*; set teacher\.type=vllm"):
            Scorer(spec)
        return
    scorer, lm, head = Scorer(spec), make(family), load_head(folders[family], torch.float32)
    asked = [ScoreRequest(sample_id=s.sample_id, prompt_ids=s.prompt_ids, response_ids=s.response_ids) for s in samples()]
    logprobs, payload = scorer.score(asked)
    for request, found in zip(asked, logprobs, strict=True):
        want = stock(lm, request).detach().numpy()
        np.testing.assert_allclose(found, want, atol=3e-5)
        states = payload[request.sample_id]
        assert isinstance(states, Hidden)
        targets = torch.tensor(request.response_ids).long()
        made = token_logprobs(from_numpy(states.values), targets, head, temperature=TEMPERATURE, vocab_size=VOCAB)[1]
        np.testing.assert_allclose(made[:, 0].numpy(), want, atol=3e-5)


@each_family
@pytest.mark.slow
def test_two_steps_in_one_process_train_it_and_what_is_sampled_next_is_of_the_new_weights(
    family: str, folders: dict[str, str]
) -> None:
    teacher = "llama" if family in MIXES else family
    config = make_config(
        steps=2,
        batch_size=8,
        max_response_tokens=12,
        student=folders[family],
        teacher={"model": folders[teacher], "dtype": "float32", "type": "torch"},
        data={"problems": 32},
        evaluate={"problems": 0},
        objective={"type": "jsd"},
        generator={"dtype": "float32"},
        trainer={"dtype": "float32", "lr": 1e-2, "schedule": "constant", "packing": family not in MIXES},
    )
    before = AutoModelForCausalLM.from_pretrained(folders[family], dtype=torch.float32)
    if teacher == family:
        shifted = Path(folders[family]).with_name(f"{family}-teacher")
        config = replace_teacher(config, str(save(family, shifted, seed=1)))
    lm, results = asyncio.run(trained(config))
    assert [r.report.mismatch_max < 1e-3 for r in results] == [True, True], [r.report.mismatch_max for r in results]
    assert all(np.isfinite(r.report.loss) and r.report.loss > 0 for r in results)
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), lm.parameters(), strict=True))


def replace_teacher(config: RunConfig, folder: str) -> RunConfig:
    return config.model_copy(update={"teacher": config.teacher.model_copy(update={"model": folder})})


async def trained(config: RunConfig) -> tuple[Any, list[StepResult]]:
    prepared = prepare(config)
    stages = in_process_stages(config, prepared)
    cursor, version, results = Cursor(prepared.prompt_ids, prepared.rows, config), FIRST_VERSION, []
    async with Grader(prepared.task, prepared.tokenizer) as grader:
        for step in (1, 2):
            result = await train_step(stages, config, Selection(config, cursor.take, grader.judge), step, version)
            assert isinstance(result, StepResult)
            version = result.publication.version
            results.append(result)
    return stages.trainers.model.lm, results  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", ["gpt2", "falcon"])
def test_the_checks_of_a_loaded_model_log_nothing(family: str, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        model = TokenLogits(make(family))
        check_head(model, CPU)
        packed_attention.use(model.lm)
        check_teacher(make("gpt2"), CPU)
        assert caplog.text == ""
    finally:
        logger.removeHandler(caplog.handler)


def test_dropout_is_off_in_training_and_stays_in_the_models_configuration() -> None:
    lm = make("gpt2")
    assert lm.config.resid_pdrop == 0.1
    model, (sample, *_) = TokenLogits(lm).train(), samples()
    found = [sampled_logprobs(model, [sample], temperature=1.0, vocab_size=VOCAB)[0] for _ in range(2)]
    np.testing.assert_array_equal(*found)
    assert lm.training
    assert lm.config.resid_pdrop == 0.1
