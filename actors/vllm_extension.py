"""What runs inside vLLM's workers: the distillation temperature, the vocabulary's trim, and weights from host memory.

Every access to a vLLM model goes through the named methods of ``RenioWorker`` (vLLM's ``worker_extension_cls``), called
with ``collective_rpc``, so that it works in one process, in an engine process of its own, and with tensor parallelism.
Importing this module in a worker also registers the ``host`` backend of vLLM's weight-transfer API.
"""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import resource_tracker, shared_memory
from typing import Any

import numpy as np
import torch
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

from actors.wire import tensors
from renio_pipeline.schema import Lora


class RenioWorker:
    """Methods that vLLM mixes into its workers. They use the worker's own attributes alone."""

    def renio_configure(self, temperature: float, vocab_size: int) -> None:
        """Make every log-probability that of ``softmax(logits[:vocab_size] / temperature)``.

        The scale is multiplied, because some models have one already. Called once, at load.
        """
        processor = self.model_runner.get_model().logits_processor  # type: ignore[attr-defined]
        processor.scale *= 1.0 / temperature
        if vocab_size > processor.org_vocab_size:
            raise ValueError(f"the model has {processor.org_vocab_size} output rows, fewer than the {vocab_size} asked for")
        processor.org_vocab_size = vocab_size

    def renio_load_adapter(self, chunk: dict[str, Any], lora: dict[str, Any]) -> None:
        """Make a chunk of LoRA factors, laid out as ``HostUpdateInfo``, the adapter of every later request."""
        from actors.vllm_lora import load_adapter

        source, block = _open(chunk.get("array"), chunk.get("shared_memory"))
        load_adapter(self.model_runner.lora_manager, tensors(chunk, source), Lora(**lora), self.device)  # type: ignore[attr-defined]
        del source, block

    def renio_verify_loaded(self) -> None:
        """Raise RuntimeError if an update left a layer without its new weights: vLLM itself only logs that."""
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        missing = [name for name, layer in model.named_modules() if _lacks_weights(model, layer)]
        if missing:
            raise RuntimeError(f"the weight update did not reach {len(missing)} layers: {', '.join(missing[:5])}")

    def renio_repack_tied_head(self) -> None:
        """Re-pack a tied output head after an update.

        On a CPU, linear layers keep a packed copy of their weights. A tied head is not among the weights that are sent, so
        it would keep the packing of the old embedding, and the model would silently mix old and new weights.
        """
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        head = getattr(model, "lm_head", None)
        if head is not None and _is_tied(model, head):
            head.quant_method.process_weights_after_loading(head)


def _is_tied(model: Any, head: Any) -> bool:
    return bool(getattr(getattr(model, "config", None), "tie_word_embeddings", False)) and isinstance(
        head, VocabParallelEmbedding
    )


def _lacks_weights(model: Any, layer: torch.nn.Module) -> bool:
    info = get_layerwise_info(layer)
    if not info.can_load() or next(layer.parameters(recurse=False), None) is None:
        return False  # complete, or nothing that a checkpoint holds (buffers such as the rotary cache)
    if isinstance(layer, ParallelLMHead) and _is_tied(model, layer):
        return False  # the embedding's weights are its own
    if isinstance(layer, VocabParallelEmbedding):
        return info.load_numel <= 0  # its rows are padded, so it never counts as full
    if hasattr(layer, "kv_cache_dtype"):
        return False  # an attention layer: its scales are optional
    return info.load_numel < info.load_numel_total


@dataclass
class HostInitInfo(WeightTransferInitInfo):
    """The host backend needs no rendezvous."""


@dataclass
class HostUpdateInfo(WeightTransferUpdateInfo):
    """One chunk of weights in host memory: either ``array`` (this process) or ``shared_memory`` (another one)."""

    names: list[str]
    dtypes: list[str]  # torch's names, "float32"
    shapes: list[list[int]]
    offsets: list[int]  # bytes from the start of the chunk
    array: Any = None  # [n] uint8, read in place
    shared_memory: str | None = None


class HostWeightTransferEngine(WeightTransferEngine[HostInitInfo, HostUpdateInfo]):
    """Weights from memory that this node shares: no copy before the engine's own load."""

    init_info_cls = HostInitInfo
    update_info_cls = HostUpdateInfo

    def init_transfer_engine(self, init_info: HostInitInfo) -> None:
        self._held: list[Any] = []

    def start_weight_update(self) -> None:
        self._held = []
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: HostUpdateInfo) -> None:
        source, block = _open(update_info.array, update_info.shared_memory)
        self._held += [block, source]  # vLLM may read a tensor only when its layer is complete
        self.model.load_weights(tensors(vars(update_info), source))

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        self._held = []

    def shutdown(self) -> None:
        self._held = []


def _open(array: Any, name: str | None) -> tuple[Any, Any]:
    """A chunk's bytes, and what must outlive them."""
    if name is None:
        return array, None
    block = _attach(name)
    return np.ndarray(block.size, np.uint8, block.buf), block


def _attach(name: str) -> shared_memory.SharedMemory:
    """Attach without telling this process's resource tracker, which would unlink the block when the process ends."""
    register = resource_tracker.register
    resource_tracker.register = lambda *_: None  # the argument track=False came with Python 3.13
    try:
        return shared_memory.SharedMemory(name)
    finally:
        resource_tracker.register = register


WeightTransferEngineFactory.register_engine("host", HostWeightTransferEngine)
