"""Packed sequences by the flash kernel: as near to float32's states and gradients as a row for each is in half precision."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from renio_pipeline.models import packed_attention
from renio_pipeline.models.packed_attention import NAME, states, use

pytestmark = pytest.mark.gpu
SIZES: dict[str, Any] = {
    "vocab_size": 997,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "initializer_range": 0.1,
}
MODELS = {
    "grouped heads": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES)),
    "sliding window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=33)),
}
LENGTHS = [[500, 1, 300, 223], [1024], [128] * 8]  # of each row


def found(lm: Any, ids: Tensor, positions: Tensor, weights: Tensor) -> list[Tensor]:
    """States of packed rows, and the gradients of what they sum to under weights."""
    hidden = states(lm, ids, positions).float()
    return [hidden.detach(), *torch.autograd.grad((hidden * weights).sum(), list(lm.base_model.parameters()))]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", MODELS)
def test_it_is_as_near_to_float32_as_sdpa_is(kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in LENGTHS]).cuda()
    ids, weights = torch.randint(997, positions.shape).cuda(), torch.randn(*positions.shape, 256).cuda() / 1000
    lm = MODELS[kind]().cuda().to(dtype)
    halved = found(lm, ids, positions, weights)  # by sdpa with a mask
    calls: list[int] = []
    by_kernel = packed_attention._by_kernel
    monkeypatch.setattr(packed_attention, "_by_kernel", lambda *args: (calls.append(1), by_kernel(*args))[1])
    use(lm)
    assert lm.config._attn_implementation == NAME
    calls.clear()
    ours = found(lm, ids, positions, weights)
    known = kind == "grouped heads" or "window_size" in packed_attention._options()
    assert len(calls) == (lm.config.num_hidden_layers if known else 0)
    lm.set_attn_implementation("sdpa")
    exact = found(lm.float(), ids, positions, weights)
    assert all(math.isfinite(float(x.sum())) for x in ours)
    for a, b, e in zip(ours, halved, exact, strict=True):
        assert (a.float() - e).norm() <= 2 * (b.float() - e).norm() + 1e-3 * e.norm()
