"""A teacher on real vLLM, with an adapter, against transformers and peft."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors import run_checks
from actors.engines.specs import teacher_spec
from actors.pools.kinds import teacher_kind
from renio_pipeline.models import info
from renio_pipeline.types import ContinuationRequest, ScoreRequest
from tests.ray.conftest import bare, demo

TEMPERATURE = 1.3
K = 6
EXTRA_ROWS = 40
DRAWS = 1000
HOT = 2 * TEMPERATURE  # the highest that vLLM takes
UNSURE = np.arange(5, 18, dtype=np.int32)  # a prompt after which the teacher has several likely tokens
ROUNDING = 5e-5  # nats: the adapter is loud, and the teacher reads its end token in the middle of texts
END = ";"  # with which the teacher ends its responses; the solutions that it scores have it between their parts


@pytest.fixture(scope="module")
def padded_teacher(tmp_path_factory: Any) -> Path:
    """The embedded teacher with more output rows than tokens, as Qwen's larger models have; the rows are loud."""
    folder: Path = tmp_path_factory.mktemp("models") / "teacher"
    model = AutoModelForCausalLM.from_pretrained(info.resolve("embedded:teacher"), dtype=torch.float32)
    rows = model.config.vocab_size
    torch.manual_seed(0)
    model.resize_token_embeddings(rows + EXTRA_ROWS, mean_resizing=False)
    with torch.no_grad():
        model.get_output_embeddings().weight[rows:] = torch.randn(EXTRA_ROWS, model.config.hidden_size)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(info.resolve("embedded:teacher"))
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(END)]
    (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": ends}))
    write_adapter(model, folder / "adapter")
    return folder


def write_adapter(model: Any, folder: Path) -> None:
    """An adapter of this model whose factors are loud, as peft writes it."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(folder, save_embedding_layers=False)


@pytest.fixture(scope="module")
def requests() -> list[ScoreRequest]:
    """Responses of several lengths, after prompts that are not the student's."""
    _, prepared = demo()
    ids = [
        np.asarray(prepared.tokenizer(row.solution, add_special_tokens=False)["input_ids"], np.int32) for row in prepared.rows
    ]
    ids[2], ids[3] = ids[2][:1], ids[3][:0]
    return [ScoreRequest(sample_id=i, prompt_ids=prepared.prompt_ids[i + 20], response_ids=ids[i]) for i in range(12)]


@pytest.fixture(scope="module")
def scored(ray_cluster: None, padded_teacher: Path, requests: list[ScoreRequest]) -> Iterator[Any]:
    """log p_T, the payload, and the texts of ``to_write``."""
    teacher = [f"teacher.model={padded_teacher}", f"teacher.adapter={padded_teacher}/adapter"]
    teacher.append(f"teacher.end_tokens={{<eos>: '{END}'}}")
    config, prepared = demo(*teacher, f"temperature={TEMPERATURE}", f"objective.k={K}")
    assert teacher_spec(config, prepared).vocab_size == len(prepared.tokenizer)
    with bare(teacher_kind(config, prepared)) as teacher:
        logprobs, payload = teacher.score.options(num_returns=2).remote(requests)
        texts = [teacher.write.remote(asked) for asked in to_write(requests)]
        with pytest.raises(
            ray.exceptions.RayTaskError, match=r"a continuation of 100000 are \d+ tokens; the teacher's engine was"
        ):
            ray.get(teacher.write.remote([replace(to_write(requests)[0][0], max_tokens=100000)]))
        yield ray.get(logprobs), ray.get(payload), *ray.get(texts)


def to_write(requests: list[ScoreRequest]) -> list[list[ContinuationRequest]]:
    """Likeliest texts of several prompts; draws of one token at a temperature; seeded texts, twice."""
    greedy = [ContinuationRequest(prompt_ids=r.prompt_ids, max_tokens=8, seed=0, temperature=0.0) for r in requests]
    draws = [replace(greedy[0], prompt_ids=UNSURE, max_tokens=1, seed=i, temperature=HOT) for i in range(DRAWS)]
    seeded = [replace(greedy[0], prompt_ids=UNSURE, seed=i, temperature=HOT, top_k=50) for i in range(4)]
    return [greedy, draws, seeded, seeded]


@functools.cache
def reference(folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), folder / "adapter")


def expected_logprobs(folder: Path, request: ScoreRequest) -> torch.Tensor:
    """[T, V] by transformers: trimmed to the tokenizer's rows, then the softmax, at the distillation temperature.

    The teacher reads its own end where the student's stands, and the other way round, and what it gives for one is the other's.
    """
    model = reference(folder)
    own, other = model.generation_config.eos_token_id
    order = torch.arange(model.config.vocab_size - EXTRA_ROWS)
    order[own], order[other] = other, own
    ids = torch.tensor([[*request.prompt_ids.tolist(), *order[torch.tensor(request.response_ids).long()].tolist()]])
    with torch.no_grad():
        logits = model(ids).logits[0, len(request.prompt_ids) - 1 : -1, order]
    return torch.log_softmax(logits / TEMPERATURE, dim=-1)


def test_log_probabilities_are_those_of_the_first_v_rows_at_the_distillation_temperature(
    scored: Any, padded_teacher: Path, requests: list[ScoreRequest]
) -> None:
    for request, logprobs in zip(requests, scored[0], strict=True):
        expected = expected_logprobs(padded_teacher, request)
        sampled = expected.gather(1, torch.tensor(request.response_ids).long()[:, None]).squeeze(1)
        assert logprobs.shape == request.response_ids.shape
        np.testing.assert_allclose(logprobs, sampled.numpy(), rtol=1e-5, atol=ROUNDING)


def test_the_payload_holds_the_sampled_token_and_the_top_k(
    scored: Any, padded_teacher: Path, requests: list[ScoreRequest]
) -> None:
    for request in requests:
        table, expected = scored[1][request.sample_id], expected_logprobs(padded_teacher, request)
        assert table.token_ids.shape == (len(request.response_ids), K + 1)
        np.testing.assert_array_equal(table.token_ids[:, 0], request.response_ids)
        np.testing.assert_allclose(table.logprobs[:, 1:], expected.topk(K).values.numpy(), rtol=1e-5, atol=ROUNDING)
        by_id = expected.gather(1, torch.tensor(table.token_ids).long())
        np.testing.assert_allclose(table.logprobs, by_id.numpy(), rtol=1e-5, atol=ROUNDING)


def test_the_likeliest_text_is_that_of_transformers(scored: Any, padded_teacher: Path, requests: list[ScoreRequest]) -> None:
    model = reference(padded_teacher)
    for request, found in zip(requests, scored[2], strict=True):
        ids = request.prompt_ids.tolist()
        for token in found.token_ids.tolist():
            with torch.no_grad():
                assert int(model(torch.tensor([ids])).logits[0, -1, : model.config.vocab_size - EXTRA_ROWS].argmax()) == token
            ids.append(token)
        ended = ids[-1] in model.generation_config.eos_token_id
        assert found.stop_reason == ("stop" if ended else "length")
        assert ended or len(found.token_ids) == 8


def test_texts_are_drawn_at_the_temperature_that_was_asked_for(scored: Any, padded_teacher: Path) -> None:
    """By which the logits are divided, whatever the distillation temperature is; and rows beyond V are never drawn."""
    model = reference(padded_teacher)
    with torch.no_grad():
        logits = model(torch.tensor(UNSURE).long()[None]).logits[0, -1, : model.config.vocab_size - EXTRA_ROWS]
    p, others = (torch.softmax(logits / t, dim=-1).numpy() for t in (HOT, HOT / TEMPERATURE))
    counts = np.bincount([int(text.token_ids[0]) for text in scored[3]], minlength=len(p))
    assert len(counts) == len(p)
    bound = 4 * (0.25 / DRAWS) ** 0.5
    assert np.abs(others - p).max() > bound, "the temperatures are too close to be told apart"
    assert np.abs(counts / DRAWS - p).max() < bound


def test_a_seeded_text_is_the_same_again_and_another_seeds_is_another(scored: Any) -> None:
    first, second = ([text.token_ids.tolist() for text in texts] for texts in scored[4:])
    assert first == second
    assert len(set(map(tuple, first))) > 1


def test_the_loud_rows_would_have_mattered(padded_teacher: Path, requests: list[ScoreRequest]) -> None:
    """Without the trim the numbers would differ: the comparison above can fail."""
    model = reference(padded_teacher)
    ids = torch.tensor([[*requests[0].prompt_ids.tolist(), *requests[0].response_ids.tolist()]])
    with torch.no_grad():
        logits = model(ids).logits[0, len(requests[0].prompt_ids) - 1 : -1]
    untrimmed = torch.log_softmax(logits / TEMPERATURE, dim=-1)[:, :-EXTRA_ROWS]
    trimmed = torch.log_softmax(logits[:, :-EXTRA_ROWS] / TEMPERATURE, dim=-1)
    assert float((untrimmed - trimmed).abs().max()) > 0.01


def test_the_exchanged_ends_would_have_mattered(padded_teacher: Path, requests: list[ScoreRequest]) -> None:
    ends = reference(padded_teacher).generation_config.eos_token_id
    assert any(int(i) in ends for r in requests for i in r.response_ids)


def test_a_hub_name_is_read_on_a_node_of_its_pool(ray_cluster: None, tmp_path: Path) -> None:
    """The node's own cache has the model; this process's does not. A name that is nowhere is the user's error."""
    folder = tmp_path / "hub/models--someone--student"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0" * 40)
    (folder / "snapshots").mkdir()
    (folder / "snapshots" / ("0" * 40)).symlink_to(info.resolve("embedded:student"))
    config, _ = demo()
    pool = config.pools.generator.model_copy(update={"env": {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}})
    config = config.model_copy(update={"pools": config.pools.model_copy(update={"generator": pool, "teacher": pool})})
    found = run_checks.inspect_on_cluster(config, "someone/student", "student")
    assert replace(found, name="embedded:student") == info.inspect("embedded:student", "student")
    with pytest.raises(
        info.ConfigError, match=r"teacher.model: 'someone/teacher' cannot be read as a model .there is no such folder"
    ):
        run_checks.inspect_on_cluster(config, "someone/teacher", "teacher.model")
    assert ray.is_initialized()
