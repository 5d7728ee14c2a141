"""A teacher on vLLM that sends hidden states gives what the torch engine gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import ray

from actors.pools.kinds import teacher_kind
from renio_pipeline.types import Hidden, ScoreRequest
from tests.ray.conftest import bare, demo

ENGINES = {
    "one process": [],
    "tensor parallel, prompts in chunks": [
        "teacher.tensor_parallel=2",
        "teacher.engine={max_num_batched_tokens: 32, enable_chunked_prefill: true}",
    ],
}


def asked() -> list[ScoreRequest]:
    _, prepared = demo()
    ids = [
        np.asarray(prepared.tokenizer(row.solution, add_special_tokens=False)["input_ids"], np.int32) for row in prepared.rows
    ]
    ids[2], ids[3] = ids[2][:1], ids[3][:0]
    return [ScoreRequest(sample_id=i, prompt_ids=prepared.prompt_ids[i % 7], response_ids=ids[i]) for i in range(24)]


def scores(*overrides: str) -> tuple[list[np.ndarray], dict[int, Hidden]]:
    config, prepared = demo("objective={type: jsd}", "temperature=1.3", *overrides)
    with bare(teacher_kind(config, prepared)) as teacher:
        first, states = teacher.score.options(num_returns=2).remote(asked())
        second, _ = teacher.score.options(num_returns=2).remote(asked())  # prefixes are cached by now
        logprobs, payload, again = ray.get([first, states, second])
    for one, two in zip(logprobs, again, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    return logprobs, payload


@pytest.fixture(scope="module")
def torch_engine(ray_cluster: None) -> Any:
    return scores("teacher.type=torch")


@pytest.mark.parametrize("engine", ENGINES)
def test_states_and_log_probabilities_equal_the_torch_engines(torch_engine: Any, engine: str) -> None:
    logprobs, payload = scores("teacher.type=vllm", *ENGINES[engine])
    assert payload.keys() == torch_engine[1].keys()
    largest = max(float(np.abs(p.values).max()) for p in torch_engine[1].values() if p.values.size)
    for request, ours, theirs in zip(asked(), logprobs, torch_engine[0], strict=True):
        assert ours.shape == request.response_ids.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        states, expected = payload[request.sample_id], torch_engine[1][request.sample_id]
        assert states.version == expected.version
        assert states.values.shape == expected.values.shape == (len(request.response_ids), 128)
        np.testing.assert_allclose(states.values, expected.values, atol=1e-5 * largest)  # fp32 sums in another order


def test_states_of_bf16_stay_bf16_and_are_as_good_as_the_torch_engines(torch_engine: Any) -> None:
    """Both engines round on the way, so each is compared with fp32: neither may be much further from it than the other."""
    exact = np.concatenate(torch_engine[0])
    gaps = {}
    for engine in ("vllm", "torch"):
        logprobs, payload = scores(f"teacher.type={engine}", "teacher.dtype=bfloat16")
        assert {p.values.dtype for p in payload.values()} == {np.dtype(np.uint16)}
        gaps[engine] = float(np.abs(np.concatenate(logprobs) - exact).mean())
    assert gaps["vllm"] < 1.5 * gaps["torch"] + 0.01, gaps
    assert gaps["vllm"] < 0.5, gaps
