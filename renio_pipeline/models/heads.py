"""Output heads of transformers models: from hidden states to logits, including scale and soft cap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from renio_pipeline.objectives.projection import Head


def logit_settings(config: Any) -> tuple[float, float | None]:
    """The scale and the soft cap (None: no cap) of a model's logits, from the keys that transformers configurations use."""
    scale = float(getattr(config, "logit_scale", None) or 1.0)  # Cohere multiplies
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)  # Granite divides
    return scale, getattr(config, "final_logit_softcapping", None)  # Gemma 2 and 3


def head_of(model: Any) -> Head:
    """The head of a loaded model. It shares the model's tensors: weight [rows, H], bias [rows] or None."""
    output = model.get_output_embeddings()
    scale, soft_cap = logit_settings(model.config.get_text_config())
    return Head(weight=output.weight, bias=getattr(output, "bias", None), scale=scale, soft_cap=soft_cap)


def load_head(folder: str, dtype: torch.dtype) -> Head:
    """Read only the output head from a model's safetensors.

    Args:
        folder: a local folder or a hub name.
        dtype: the dtype of the head's tensors, weight [rows, H] and bias [rows].

    Raises:
        ValueError: no file contains the head.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with init_empty_weights():
        skeleton = AutoModelForCausalLM.from_config(config)
    head = skeleton.get_output_embeddings()
    names = dict(skeleton.named_parameters(remove_duplicate=False))
    candidates = [name for name, p in names.items() if p is head.weight]
    if config.get_text_config().tie_word_embeddings:
        candidates += [name for name, p in names.items() if p is skeleton.get_input_embeddings().weight]
    bias_names = [name for name, p in names.items() if p is getattr(head, "bias", None)]
    weight = _read(folder, candidates, dtype)
    if weight is None:
        raise ValueError(f"{folder}: no safetensors file has the output head, {' or '.join(candidates)}")
    scale, soft_cap = logit_settings(config.get_text_config())
    return Head(weight=weight, bias=_read(folder, bias_names, dtype), scale=scale, soft_cap=soft_cap)


def _read(folder: str, names: list[str], dtype: torch.dtype) -> torch.Tensor | None:
    from safetensors import safe_open
    from transformers.utils import cached_file

    index = cached_file(folder, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False)
    files = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"] if index else {}
    for name in names:
        path = cached_file(folder, files.get(name, "model.safetensors"), _raise_exceptions_for_missing_entries=False)
        if path is None:
            continue
        with safe_open(path, "pt") as file:
            if name in file.keys():
                return file.get_tensor(name).to(dtype)
    return None
