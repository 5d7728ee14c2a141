"""A model of the student's shapes, sequences with a long tail, and the products that they need."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.benchmarks.gpu.bench import Bench, Work


def model(bench: Bench) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    s = bench.sizes
    config = Qwen3Config(
        vocab_size=s.vocabulary,
        hidden_size=s.hidden,
        intermediate_size=s.intermediate,
        num_hidden_layers=s.layers,
        num_attention_heads=s.heads,
        num_key_value_heads=s.kv_heads,
        head_dim=s.head_dim,
        tie_word_embeddings=True,
        max_position_embeddings=40960,
    )
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(bench.device):
            return Qwen3ForCausalLM(config)
    finally:
        torch.set_default_dtype(usual)


def long_tailed(bench: Bench) -> list[tuple[int, int]]:
    """Tokens of prompts and responses: log-normal, mean about a fifth of the longest."""
    rng = np.random.default_rng(0)
    longest = bench.sizes.longest
    lengths = np.minimum(rng.lognormal(np.log(longest / 5) - 0.5, 1.0, bench.sizes.samples), longest).astype(int)
    prompts = rng.integers(longest // 40 + 1, longest // 16 + 2, bench.sizes.samples)
    return [(int(p), max(1, int(n))) for p, n in zip(prompts, lengths, strict=True)]


def layers_floor(bench: Bench, tokens: int, rows: int) -> Work:
    """The linear layers' products for `tokens` tokens, `rows` at a time."""
    s = bench.sizes
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    shapes = [(s.hidden, q), (s.hidden, kv), (s.hidden, kv), (q, s.hidden)]
    shapes += [(s.hidden, s.intermediate)] * 2 + [(s.intermediate, s.hidden)]
    pairs = [(bench.draw(min(rows, tokens), i), bench.draw(o, i)) for i, o in shapes]
    times = s.layers * max(1, round(tokens / rows))

    def work() -> None:
        for _ in range(times):
            for x, weight in pairs:
                _ = x @ weight.T

    return work


def head_floor(bench: Bench, tokens: int) -> Work:
    s = bench.sizes
    x, weight, rows = bench.draw(min(tokens, 4096), s.hidden), bench.draw(s.vocabulary, s.hidden), max(1, round(tokens / 4096))

    def work() -> None:
        for _ in range(rows):
            _ = x @ weight.T

    return work
