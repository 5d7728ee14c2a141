"""vLLM's logits and log-probabilities: their scale, their trim, their layout, and how many are made at a time."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from tests.contracts.reliance import expressions, parameters, relied_on


@relied_on(
    "vllm",
    "actors.engines.vllm_extension.RenioWorker.renio_configure",
    breaks="log-probabilities would not be those of softmax(logits[:vocab_size] / temperature)",
)
def test_scale_and_vocabulary_of_the_logits_count_when_they_are_set_late(vllm_config: Any) -> None:
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.layers.logits_processor import LogitsProcessor

    with set_current_vllm_config(vllm_config):
        processor = LogitsProcessor(8, 7)
    assert processor.org_vocab_size == 7
    weight, states = torch.randn(8, 4), torch.randn(3, 4)
    linear = SimpleNamespace(apply=lambda layer, hidden, bias: hidden @ weight.T)
    head: Any = SimpleNamespace(quant_method=linear, tp_size=1)
    processor.scale *= 1.0 / 1.25
    processor.org_vocab_size = 6
    torch.testing.assert_close(processor(head, states), (states @ weight.T)[:, :6] / 1.25)


@relied_on(
    "vllm",
    "actors.engines.vllm_extension.RenioWorker.renio_configure",
    breaks="a compiled graph would keep the scale and the vocabulary that it was traced with",
)
def test_logits_are_made_outside_of_what_is_compiled() -> None:
    """Read: the model below the head is what ``torch.compile`` gets, and the runner calls ``compute_logits`` by itself."""
    from vllm.compilation.wrapper import TorchCompileWithNoGuardsWrapper
    from vllm.model_executor.models import llama, qwen2, qwen3
    from vllm.v1.worker.gpu import cudagraph_utils
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    for inner, outer in (
        (qwen2.Qwen2Model, qwen2.Qwen2ForCausalLM),
        (qwen3.Qwen3Model, qwen3.Qwen3ForCausalLM),
        (llama.LlamaModel, llama.LlamaForCausalLM),
    ):
        assert issubclass(inner, TorchCompileWithNoGuardsWrapper)
        assert not issubclass(outer, TorchCompileWithNoGuardsWrapper)
        assert not any("logits" in text for text in expressions(outer.forward))
    assert "self.model.compute_logits(sample_hidden_states)" in expressions(GPUModelRunner.sample)
    assert not any("compute_logits" in text for text in expressions(cudagraph_utils))


@relied_on(
    "vllm",
    "actors.engines.vllm_extension.RenioWorker.renio_configure",
    breaks="sampling sharded by batch would no longer be what ignores our trim of the vocabulary",
)
def test_sampling_sharded_by_batch_cuts_logits_at_the_model_s_own_vocabulary() -> None:
    """Read. This is why the option must not be passed through."""
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    assert {"self.model.compute_logits_local(sample_hidden_states)", "self.vocab_size"} <= expressions(GPUModelRunner.sample)


@relied_on(
    "vllm",
    "renio_pipeline.planning.memory.engine",
    breaks="the planner counts another number of prompt tokens whose logits are held at a time",
)
def test_logits_of_a_prompt_are_made_a_thousand_tokens_at_a_time() -> None:
    from vllm.v1.worker.gpu.sample import prompt_logprob

    made: list[int] = []

    def logits(states: torch.Tensor) -> torch.Tensor:
        made.append(len(states))
        raise StopIteration  # what is made of them needs Triton

    assert prompt_logprob.CHUNK_SIZE == 1024
    with contextlib.suppress(StopIteration):
        prompt_logprob.compute_prompt_logprobs_with_chunking(torch.zeros(3000), torch.zeros(3000, 2), logits, 0)
    assert made == [1024]


@relied_on(
    "vllm", "actors.engines.vllm_teacher.top_k_of", breaks="a teacher's log-probabilities would be read from the wrong places"
)
def test_flat_prompt_log_probabilities_have_the_prompt_s_own_token_first() -> None:
    from vllm import SamplingParams
    from vllm.v1.engine.logprobs import LogprobsProcessor
    from vllm.v1.outputs import LogprobsTensors

    from actors.engines.vllm_teacher import top_k_of

    k, prompt = 2, torch.tensor([4, 1, 3])
    asked: Any = SimpleNamespace(sampling_params=SamplingParams(prompt_logprobs=k, flat_logprobs=True, detokenize=False))
    logprobs = torch.randn(3, 5).log_softmax(-1)
    best = logprobs.topk(k)
    found = LogprobsProcessor.from_new_request(None, asked)
    found._update_prompt_logprobs(
        LogprobsTensors(
            torch.cat([prompt[:, None], best.indices], 1),
            torch.cat([logprobs.gather(1, prompt[:, None]), best.values], 1),
            torch.ones(3),
        )
    )
    flat: Any = found.prompt_logprobs
    assert len(flat) == 4  # the first token has a place, and no values
    assert len(flat.logprobs) == 3 * (k + 1)
    table = top_k_of(flat, 2, k)
    assert table.token_ids[:, 0].tolist() == [1, 3]
    np.testing.assert_allclose(table.logprobs[:, 1:], best.values[1:].numpy(), rtol=1e-6)


@relied_on(
    "vllm",
    "actors.engines.vllm_teacher.top_k_of",
    "actors.engines.generator.Generator._written",
    breaks="the first of each position's values would not be the token's own",
)
def test_both_runners_put_a_token_s_own_log_probability_before_the_likeliest() -> None:
    """Exercised on the CPU's sampler; read of the GPU's, which needs Triton."""
    from vllm.v1.sample.sampler import Sampler
    from vllm.v1.worker.gpu.sample.logprob import compute_topk_scores

    logprobs = torch.randn(3, 5).log_softmax(-1)
    tokens = torch.tensor([4, 1, 3])
    found = Sampler.gather_logprobs(logprobs, 2, tokens)
    assert found.logprob_token_ids[:, 0].tolist() == [4, 1, 3]
    assert found.logprobs.shape == (3, 3)
    read = expressions(compute_topk_scores)
    assert {"sampled_token_ids.unsqueeze(-1)", "torch.cat((logprob_token_ids, topk_indices), dim=1)"} <= read


@relied_on(
    "vllm",
    "actors.engines.generator.Generator._written",
    "actors.engines.generator.Generator._params",
    breaks="a response would not have exactly one log-probability for each of its tokens",
)
def test_flat_log_probabilities_of_a_response_are_one_a_token() -> None:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.logprobs import LogprobsProcessor
    from vllm.v1.outputs import LogprobsLists

    params = SamplingParams(logprobs=0, flat_logprobs=True, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY)
    request: Any = SimpleNamespace(sampling_params=params)
    found = LogprobsProcessor.from_new_request(None, request)
    for token, value in ((7, -0.5), (9, -1.5)):
        found._update_sample_logprobs(LogprobsLists(np.array([[token]]), np.array([[value]]), np.array([1])))
    flat: Any = found.logprobs
    assert (flat.token_ids, flat.logprobs) == ([7, 9], [-0.5, -1.5])
    assert {"logprobs", "token_ids", "finish_reason"} <= parameters(_completion()).keys()


def _completion() -> Any:
    from vllm import CompletionOutput

    return CompletionOutput
