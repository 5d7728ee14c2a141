"""Attention without a mask gives packed sequences what sdpa gives each of them alone, and models that need more keep sdpa."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from renio_pipeline.models import packed_attention
from renio_pipeline.models.packed_attention import NAME, states, use

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.4,
}
MODELS = {
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "sliding": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=3)),
    "some sliding": lambda: Qwen3ForCausalLM(
        Qwen3Config(**SIZES, sliding_window=3, use_sliding_window=True, layer_types=["sliding_attention", "full_attention"])
    ),
}
LENGTHS = [[5, 1, 7], [9, 4], [13]]  # of each row


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in LENGTHS])
    return torch.randint(97, positions.shape), positions


def made(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    lm = MODELS[kind]().to(**options)
    use(lm)
    return lm


@pytest.mark.parametrize("kind", MODELS)
def test_each_packed_sequence_has_the_states_and_gradients_that_it_has_alone(kind: str) -> None:
    lm, (ids, positions) = made(kind, dtype=torch.float64), rows()
    assert lm.config._attn_implementation == NAME
    found = states(lm, ids, positions)
    gradient = torch.randn_like(found)
    (found * gradient).sum().backward()
    packed = [p.grad.clone() for p in lm.base_model.parameters()]
    lm.zero_grad()
    lm.set_attn_implementation("sdpa")
    for row, lengths in enumerate(LENGTHS):
        ends = torch.tensor(lengths).cumsum(0).tolist()
        for end, length in zip(ends, lengths, strict=True):
            here = slice(end - length, end)
            alone = states(lm, ids[row : row + 1, here], None)[0]
            torch.testing.assert_close(found[row, here], alone, rtol=1e-9, atol=1e-9)
            (alone * gradient[row, here]).sum().backward()
    for ours, parameter in zip(packed, lm.base_model.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", ["qwen3", "some sliding"])
def test_checkpointing_changes_nothing(kind: str) -> None:
    lm, (ids, positions) = made(kind).train(), rows()
    gradients = []
    for _ in range(2):
        states(lm, ids, positions).square().sum().backward()
        gradients.append(lm.model.layers[0].self_attn.q_proj.weight.grad.clone())
        lm.zero_grad()
        lm.gradient_checkpointing_enable({"use_reentrant": False})
    torch.testing.assert_close(*gradients)


def test_it_makes_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, seen = made("some sliding"), []
    one_by_one = packed_attention._one_by_one

    def spy(*args: Any) -> torch.Tensor:
        seen.append(args[3].tolist())
        return one_by_one(*args)

    monkeypatch.setattr(packed_attention, "_one_by_one", spy)
    states(lm, *rows())
    assert seen == [[0, 5, 6, 13, 22, 26, 39]] * 2


def test_padding_and_generation_go_on_as_with_sdpa() -> None:
    """The models of one process are written with by generators, with caches and padding on the left."""
    lm, (ids, _) = made("some sliding").eval(), rows()
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    options = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    options["attention_mask"] = mask
    ours = lm.generate(ids, **options)
    lm.set_attn_implementation("sdpa")
    assert all(torch.equal(a, b) for a, b in zip(ours.logits, lm.generate(ids, **options).logits, strict=True))


KEEPERS = {
    "soft cap": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, sliding_window=4)),
    "dropout": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_dropout=0.1)),
    "dropout by another name": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=16, n_layer=1, n_head=2)).train(),
    "eager": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="eager")),
    "its own attention": lambda: BloomForCausalLM(BloomConfig(vocab_size=97, hidden_size=16, n_layer=1, n_head=2)),
}


@pytest.mark.parametrize("kind", KEEPERS)
def test_a_model_that_needs_more_keeps_its_attention(kind: str) -> None:
    lm = KEEPERS[kind]()
    usual = lm.config._attn_implementation
    use(lm)
    assert lm.config._attn_implementation == usual
