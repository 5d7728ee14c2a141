"""What runs inside vLLM's workers: the distillation temperature, the vocabulary's trim, and weights from host memory.

Every access to a vLLM model goes through the named methods of ``RenioWorker`` (vLLM's ``worker_extension_cls``), called
with ``collective_rpc``, so that it works in one process, in an engine process of its own, and with tensor parallelism.
Importing this module in a worker also registers the ``host`` backend of vLLM's weight-transfer API.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
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

from actors.weight_sync.background import on_thread
from actors.weight_sync.receiver import TransferAborted
from actors.weight_sync.wire import tensors
from renio_pipeline.config.schema import Lora

logger = logging.getLogger(__name__)
WATCH_SECONDS = 0.1  # between two looks whether a transfer goes on


class RenioWorker:
    """Methods that vLLM mixes into its workers. They use the worker's own attributes alone."""

    weight_transfer_engine: Any  # vLLM's

    def renio_try(self, method: str, *args: Any) -> str | None:
        """Call another method, and return its error as text.

        Where a worker raises, vLLM leaves the answers of the workers after it unread, and takes them for those to its next
        call: with tensor parallelism, an engine of which one call has failed would mix up all later ones.
        """
        try:
            getattr(self, method)(*args)
        except Exception as error:
            logger.exception("%s failed", method)
            return f"{type(error).__name__}: {error}"
        return None

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
        from actors.engines.vllm_lora import load_adapter

        arrays, block = _open(chunk.get("arrays"), chunk.get("shared_memory"), chunk.get("spans"))
        load_adapter(self.model_runner.lora_manager, tensors(chunk, arrays), Lora(**lora), self.device)  # type: ignore[attr-defined]
        del arrays, block

    def renio_join(self, init_info: dict[str, Any], file: str) -> None:
        """``init_weight_transfer_engine`` with an engine of its own for each group: the former one is left.

        Raises:
            TransferAborted: ``file`` was removed. A rendezvous cannot be stopped, so it is left behind on its thread.
        """
        self.weight_transfer_engine.shutdown()
        config: Any = self.vllm_config  # type: ignore[attr-defined]
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        fresh = WeightTransferEngineFactory.create_engine(config.weight_transfer_config, config, self.device, model)  # type: ignore[attr-defined]
        joined = on_thread(_join, fresh, init_info)
        while not wait([joined], WATCH_SECONDS).done:
            if not os.path.exists(file):
                joined.add_done_callback(lambda _: fresh.shutdown())  # the others may still come
                raise TransferAborted("the rendezvous was called off")
        joined.result()
        self.weight_transfer_engine = fresh

    def renio_start_update(self) -> None:
        """``start_weight_update``, also after an update that was not finished."""
        if _forget_update(self.model_runner.get_model()):  # type: ignore[attr-defined]
            self._weight_update_active = True  # one that failed is no longer open
            self.finish_weight_update()  # type: ignore[attr-defined]
        self.start_weight_update()  # type: ignore[attr-defined]

    def renio_receive(self, update_info: dict[str, Any], file: str) -> None:
        """``update_weights`` from a group whose members wait for each other, for as long as ``file`` is there.

        Raises:
            TransferAborted: it was removed. What the model was given since may be anything.
        """
        with _watched(file, self.weight_transfer_engine.shutdown):
            self.update_weights(update_info)  # type: ignore[attr-defined]

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


def _join(engine: Any, init_info: dict[str, Any]) -> None:
    if engine.device.type != "cpu":
        torch.accelerator.set_device_index(engine.device)  # a new thread has the first one
    engine.init_transfer_engine(engine.parse_init_info(init_info))


@contextmanager
def _watched(file: str, abort: Callable[[], None]) -> Iterator[None]:
    """Call ``abort`` when the file is removed while the block runs; the block then raises TransferAborted.

    An aborted communicator may raise anything, or say nothing and leave memory as it was.
    """
    over, aborted = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_SECONDS):
            if not os.path.exists(file):
                aborted.set()
                abort()
                return

    watching = on_thread(watch)
    try:
        yield
    finally:
        over.set()
        watching.result()
        if aborted.is_set():
            raise TransferAborted("the transfer was called off")


def _forget_update(model: torch.nn.Module) -> bool:
    """Drop what an unfinished update left in the layers; whether there was one. To finish it then changes no weights.

    A layer would count what it had as a part of the next update.
    """
    infos = [info for info in map(get_layerwise_info, model.modules()) if info.can_load()]
    for info in infos:
        info.loaded_weights, info.load_numel = [], 0
    return bool(infos)


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
    """One chunk of weights in host memory: either ``arrays`` (this process) or ``shared_memory`` (another one)."""

    names: list[str]
    dtypes: list[str]  # torch's names, "float32"
    shapes: list[list[int]]
    arrays: Any = None  # of each tensor: [n] uint8, read in place
    shared_memory: str | None = None
    spans: list[tuple[int, int]] | None = None  # of each tensor: its bytes in there


class HostWeightTransferEngine(WeightTransferEngine[HostInitInfo, HostUpdateInfo]):
    """Weights from memory that this node shares: no copy before the engine's own load."""

    init_info_cls = HostInitInfo
    update_info_cls = HostUpdateInfo

    def init_transfer_engine(self, init_info: HostInitInfo) -> None:
        """Nobody calls it."""

    def start_weight_update(self) -> None:
        self._held: list[Any] = []
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: HostUpdateInfo) -> None:
        arrays, block = _open(update_info.arrays, update_info.shared_memory, update_info.spans)
        self._held += [block, arrays]  # vLLM may read a tensor only when its layer is complete
        self.model.load_weights(tensors(vars(update_info), arrays))

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        self._held = []

    def shutdown(self) -> None:
        self._held = []


def _open(arrays: Any, name: str | None, spans: Any) -> tuple[Any, Any]:
    """The bytes of a chunk's tensors, and what must outlive them."""
    if name is None:
        return arrays, None
    block = _attach(name)
    return [np.ndarray(end - start, np.uint8, block.buf, start) for start, end in spans], block


def _attach(name: str) -> shared_memory.SharedMemory:
    """Attach without telling this process's resource tracker, which would unlink the block when the process ends."""
    register = resource_tracker.register
    resource_tracker.register = lambda *_: None  # the argument track=False came with Python 3.13
    try:
        return shared_memory.SharedMemory(name)
    finally:
        resource_tracker.register = register


WeightTransferEngineFactory.register_engine("host", HostWeightTransferEngine)
