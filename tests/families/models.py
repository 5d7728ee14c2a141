"""Tiny models of ten families, with random weights and the demo's tokenizer, made with transformers where they are needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import renio_pipeline

DEMO = Path(renio_pipeline.__file__).parent / "demo"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
VOCAB, CONTEXT = 258, 128
_ENDS = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
# Heads of 32 dimensions are the smallest that vLLM computes on a CPU.
_SIZES = {"vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_MORE = {"intermediate_size": 96, "num_key_value_heads": 1, "max_position_embeddings": CONTEXT}
_MOE = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}

FAMILIES: dict[str, Callable[[], Any]] = {}


def family(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def enter(make: Callable[[], Any]) -> Callable[[], Any]:
        FAMILIES[name] = make
        return make

    return enter


@family("llama")
def _llama() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**_SIZES, **_MORE, **_ENDS, head_dim=32)


@family("qwen2")
def _qwen2() -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(**_SIZES, **_MORE, **_ENDS, tie_word_embeddings=True)


@family("qwen3-moe")
def _qwen3_moe() -> Any:
    from transformers import Qwen3MoeConfig

    return Qwen3MoeConfig(**_SIZES, **_MORE, **_ENDS, **_MOE, head_dim=32)


@family("gemma2")
def _gemma2() -> Any:
    """Soft caps of attention and logits, and a sliding window in every second layer."""
    from transformers import Gemma2Config

    return Gemma2Config(**_SIZES, **_MORE, **_ENDS, head_dim=32, query_pre_attn_scalar=32, sliding_window=16)


@family("gemma3")
def _gemma3() -> Any:
    from transformers import Gemma3TextConfig

    kinds = ["sliding_attention", "full_attention"]
    return Gemma3TextConfig(
        **_SIZES, **_MORE, **_ENDS, head_dim=32, query_pre_attn_scalar=32, sliding_window=16, layer_types=kinds
    )


@family("phi")
def _phi() -> Any:
    """An output head with a bias, rotary positions of a half of each head, and attention beside the MLP."""
    from transformers import PhiConfig

    return PhiConfig(**_SIZES, **_MORE, **_ENDS)


@family("mistral")
def _mistral() -> Any:
    from transformers import MistralConfig

    return MistralConfig(**_SIZES, **_MORE, **_ENDS, head_dim=32, sliding_window=16)


@family("olmo")
def _olmo() -> Any:
    """Layer norms without parameters."""
    from transformers import OlmoConfig

    return OlmoConfig(**_SIZES, **_MORE, **_ENDS)


@family("olmo2")
def _olmo2() -> Any:
    from transformers import Olmo2Config

    return Olmo2Config(**_SIZES, **_MORE, **_ENDS)


@family("gpt2")
def _gpt2() -> Any:
    """Learnt positions, and projections that are stored the other way round (Conv1D)."""
    from transformers import GPT2Config

    return GPT2Config(vocab_size=VOCAB, n_embd=64, n_layer=2, n_head=2, n_positions=CONTEXT, **_ENDS)


@family("falcon")
def _falcon() -> Any:
    """One fused projection for queries, keys and values."""
    from transformers import FalconConfig

    return FalconConfig(**_SIZES, **_ENDS, max_position_embeddings=CONTEXT, new_decoder_architecture=False)


def make(name: str, *, seed: int = 0, spread: float = 0.2) -> Any:
    """A model in float32.

    Args:
        spread: the standard deviation of its weights: with transformers' own, all tokens would be about equally likely.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = FAMILIES[name]()
    config.initializer_range = spread
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def save(name: str, folder: Path, *, seed: int = 0) -> Path:
    """A model folder, with the demo's tokenizer."""
    make(name, seed=seed).save_pretrained(folder)
    for file in TOKENIZER:
        shutil.copy(DEMO / "student" / file, folder / file)
    return folder
