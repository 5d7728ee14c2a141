"""LoRA on a trainer rank: factors on the student's linear modules (peft), and the weights that are sent.

A module's weights are W + scale · B · A with scale = alpha / r (E. Hu et al., arXiv 2106.09685, section 4.1). W itself never
changes, so no update is added twice or lost to rounding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from actors.trainer.weight_source import DeepSpeedSource, ParameterMeta
from renio_pipeline.config.schema import Lora

_PART = re.compile(r"(?P<module>.+)\.(?P<part>base_layer|lora_A\.default|lora_B\.default)\.(?P<name>weight|bias)")


def add_factors(lm: Any, lora: Lora, seed: int) -> None:
    """Freeze a model and add factors to its target modules, in place. The seed makes them equal on all ranks."""
    from peft import inject_adapter_in_model

    lm.requires_grad_(False)
    torch.manual_seed(seed)
    inject_adapter_in_model(_peft_config(lora), lm)


def scale_of(lora: Lora) -> float:
    return lora.alpha / lora.r


def merged(pairs: Iterable[tuple[str, torch.Tensor]], scale: float, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """The plain model's (name, tensor) pairs from a factored model's: W + scale · B · A in fp32, cast once."""
    held: dict[str, torch.Tensor] = {}
    for name, tensor in pairs:
        found = _PART.fullmatch(name)
        if found is None:
            yield name, tensor.to(dtype)
            continue
        module, part = found["module"], found["part"]
        if found["name"] == "bias":
            yield f"{module}.bias", tensor.to(dtype)
        elif part == "lora_B.default":  # the last of a module's three tensors
            whole = held.pop("base_layer").float().addmm(tensor.float(), held.pop("lora_A.default").float(), alpha=scale)
            yield f"{module}.weight", whole.to(dtype)
        else:
            held[part] = tensor
    assert not held, f"factors without their module: {list(held)}"


class MergedSource:
    """A weight source (as ``DeepSpeedSource`` is) of the model that a generator without LoRA serves."""

    def __init__(self, module: torch.nn.Module, lora: Lora, *, dtype: torch.dtype) -> None:
        self._whole, self._scale, self._dtype = DeepSpeedSource(module, dtype=None), scale_of(lora), dtype

    def metadata(self) -> list[ParameterMeta]:
        plain = [(plain_name(m.name), m.shape) for m in self._whole.metadata() if not is_factor(m.name)]
        return [ParameterMeta(name, self._dtype, shape) for name, shape in plain]

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        return merged(self._whole, self._scale, self._dtype)


def plain_name(name: str) -> str:
    """
    >>> plain_name("model.layers.0.mlp.up_proj.base_layer.weight")
    'model.layers.0.mlp.up_proj.weight'
    """
    return name.replace(".base_layer.", ".")


def is_factor(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def peft_name(name: str) -> str:
    """
    >>> peft_name("model.layers.0.mlp.up_proj.lora_A.default.weight")
    'base_model.model.model.layers.0.mlp.up_proj.lora_A.weight'
    """
    return "base_model.model." + name.replace(".default.", ".")


class AdapterSource:
    """A weight source of only the factors, under the names that peft uses in its files."""

    def __init__(self, module: torch.nn.Module, *, dtype: torch.dtype | None) -> None:
        self._factors = DeepSpeedSource(module, dtype=dtype, only=is_factor)

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in self._factors:
            yield peft_name(name), tensor


def save_adapter(state: dict[str, torch.Tensor], lora: Lora, model: str, folder: str) -> None:
    """Write the factors as a folder that peft and vLLM can load."""
    from safetensors.torch import save_file

    Path(folder).mkdir(parents=True)
    save_file({name: t.contiguous() for name, t in state.items()}, f"{folder}/adapter_model.safetensors")
    config = _peft_config(lora)
    config.base_model_name_or_path = model
    config.save_pretrained(folder)


def _peft_config(lora: Lora) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=list(lora.targets), bias="none", task_type="CAUSAL_LM")
