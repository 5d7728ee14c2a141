"""Models with random weights, of any size, and random token ids: what a check needs of a model without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.gpu.settings import Settings, Sizes

LOGITS = 2.0  # their standard deviation: with a trained model's size, rounding errors have a trained model's size too


def config_of(settings: Settings, sizes: Sizes) -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=settings.rows,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        tie_word_embeddings=sizes.tied,
        max_position_embeddings=8192,
        initializer_range=0.9 * sizes.hidden**-0.5,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def build(settings: Settings, sizes: Sizes, dtype: str) -> Any:
    """A model on the settings' device, in evaluation mode.

    The rows beyond the vocabulary that counts have by far the largest logits: nothing that does not trim them can pass.
    """
    import torch
    from transformers import Qwen3ForCausalLM

    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(settings.device):
            lm = Qwen3ForCausalLM(config_of(settings, sizes)).eval()
    finally:
        torch.set_default_dtype(usual)
    head = lm.get_output_embeddings().weight
    with torch.no_grad():
        head.normal_(std=LOGITS * sizes.hidden**-0.5)
        head[settings.vocabulary :] *= 5
    return lm


@contextmanager
def saved(settings: Settings, sizes: Sizes, dtype: str | None = None) -> Iterator[str]:
    """A folder with such a model, and with the tokenizer of the embedded student: engines want one to be there."""
    import tempfile

    import torch

    from renio_pipeline.models import info

    with tempfile.TemporaryDirectory(prefix="renio-gpu-check-") as folder:
        lm = build(settings, sizes, dtype or settings.dtype)
        lm.save_pretrained(folder)
        del lm
        if settings.on_gpu:
            torch.cuda.empty_cache()
        source = Path(info.resolve("embedded:student"))
        for path in source.glob("*token*"):
            shutil.copy(path, folder)
        yield folder


def loaded(settings: Settings, folder: str) -> Any:
    """The saved model in torch, to compare an engine with."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, settings.dtype)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(settings.device).eval().requires_grad_(False)


def ids(settings: Settings, count: int, seed: int) -> np.ndarray:
    """[count] int32 token ids that count."""
    return np.random.default_rng(seed).integers(0, settings.vocabulary, count).astype(np.int32)


def environment(settings: Settings) -> None:
    """What the pipeline gives its actors' processes, for an engine or a trainer in this one."""
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    if not settings.on_gpu:
        os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
