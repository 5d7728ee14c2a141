"""Load LoRA factors from memory into a vLLM worker; vLLM itself reads adapters only from files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from vllm.lora.lora_model import LoRAModel
from vllm.lora.peft_helper import PEFTHelper

from renio_pipeline.config.schema import Lora

ADAPTER_ID = 1  # there is one adapter at a time; requests name it


def load_adapter(manager: Any, tensors: Sequence[tuple[str, torch.Tensor]], lora: Lora, device: Any) -> None:
    """Make ``tensors``, under peft's names, the worker's adapter, in place of the previous one.

    Args:
        manager: the model runner's LoRA manager.

    Raises:
        ValueError: a target module lacks its factors, or factors have no module. vLLM would silently serve zeros.
    """
    slots = manager._adapter_manager
    helper = PEFTHelper.from_dict({"r": lora.r, "lora_alpha": lora.alpha, "target_modules": list(lora.targets)})
    helper.validate_legal(manager.lora_config)
    mapper = getattr(slots.model, "hf_to_vllm_mapper", None)
    adapter = LoRAModel.from_lora_tensors(
        ADAPTER_ID,
        {name: tensor.clone() for name, tensor in tensors},  # vLLM multiplies B by alpha / r in place
        helper,
        device=str(device),
        dtype=manager.lora_config.lora_dtype,
        model_vocab_size=manager.vocab_size,
        weights_mapper=mapper.get_rename_mapper() if mapper is not None else None,
        skip_prefixes=getattr(slots.model, "lora_skip_prefixes", None),
    )
    _check(slots, adapter, lora)
    slots.remove_adapter(ADAPTER_ID)
    slots.add_adapter(adapter)
    slots.activate_adapter(ADAPTER_ID)
    slots.pin_adapter(ADAPTER_ID)


def _check(slots: Any, adapter: Any, lora: Lora) -> None:
    modules = {part for name in slots.modules for part in slots.packed_modules.get(name, [name])}
    wanted = {name for name in modules if name.rpartition(".")[2] in lora.targets}
    found = {name for name, w in adapter.loras.items() if w.lora_a is not None and w.lora_b is not None}
    if found != wanted:
        raise ValueError(
            f"the adapter lacks {sorted(wanted - found)[:5]} of the engine's modules, and has {sorted(found - wanted)[:5]}, "
            "which the engine does not know"
        )
