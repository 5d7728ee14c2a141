"""What vLLM's layerwise reload has loaded: which layers lack weights after an update, and which are not packed."""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info


def forget_update(model: torch.nn.Module) -> bool:
    """Drop the weights that an unfinished update left in the layers. Returns whether there was one.

    Finishing the update then changes no weights. Otherwise a layer would count the leftovers as part of the next update.
    """
    infos = [info for info in map(get_layerwise_info, model.modules()) if info.can_load()]
    for info in infos:
        info.loaded_weights, info.load_numel = [], 0
    return bool(infos)


def is_tied(model: Any, head: Any) -> bool:
    """Whether an output head shares the embedding's weights."""
    return bool(getattr(getattr(model, "config", None), "tie_word_embeddings", False)) and isinstance(
        head, VocabParallelEmbedding
    )


def repack(model: torch.nn.Module) -> None:
    """Pack the weights that a CPU's kernels read packed, and that an update leaves as they were sent.

    A tied output head is not among the weights that are sent, so it would keep the packed copy of the old embedding. Experts
    are packed only when they are first loaded. Either way the model would silently compute with other weights.
    """
    head = getattr(model, "lm_head", None)
    if head is not None and is_tied(model, head):
        head.quant_method.process_weights_after_loading(head)
    for layer in model.modules():
        experts = getattr(getattr(getattr(layer, "quant_method", None), "moe_kernel", None), "fused_experts", None)
        if isinstance(experts, CPUUnquantizedExperts):
            experts.process_weights_after_loading(layer)


def lacks_weights(model: Any, layer: torch.nn.Module) -> bool:
    """Whether a layer did not receive all its weights in the current update."""
    info = get_layerwise_info(layer)
    if not info.can_load() or next(layer.parameters(recurse=False), None) is None:
        return False  # complete, or not in a checkpoint (buffers such as the rotary cache)
    if isinstance(layer, ParallelLMHead) and is_tied(model, layer):
        return False  # it shares the embedding's weights
    if isinstance(layer, VocabParallelEmbedding):
        return info.load_numel <= 0  # its rows are padded, so it never counts as complete
    if hasattr(layer, "kv_cache_dtype"):
        return False  # an attention layer: its scales are optional
    return info.load_numel < info.load_numel_total
