"""Runs inside vLLM's workers: sets the distillation temperature and the vocabulary size, and loads weights.

Every access to a vLLM model goes through the methods of ``RenioWorker`` (vLLM's ``worker_extension_cls``), which are called
with ``collective_rpc``. So it works alike in one process, with a separate engine process, and with tensor parallelism.
Importing this module in a worker also registers the ``host`` backend of vLLM's weight-transfer API.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from typing import Any

import torch
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from actors.engines.host_backend import open_chunk
from actors.engines.layerwise_reload import forget_update, lacks_weights, repack
from actors.weight_sync.background import on_thread
from actors.weight_sync.receiver import TransferAborted
from actors.weight_sync.wire import tensors
from renio_pipeline.config.schema import Lora

logger = logging.getLogger(__name__)
WATCH_SECONDS = 0.1  # between two checks whether a transfer was aborted


class RenioWorker:
    """Methods that vLLM mixes into its workers. They use only the worker's own attributes."""

    weight_transfer_engine: Any  # vLLM's

    def renio_try(self, method: str, *args: Any) -> str | None:
        """Call another method, and return its error as text.

        If a worker raises, vLLM does not read the answers of the workers after it, and takes them for the answers to its next
        call. With tensor parallelism, one failed call would mix up all later ones.
        """
        try:
            getattr(self, method)(*args)
        except Exception as error:
            logger.exception("%s failed", method)
            return f"{type(error).__name__}: {error}"
        return None

    def renio_configure(self, temperature: float, vocab_size: int) -> None:
        """Make every log-probability the logarithm of ``softmax(logits[:vocab_size] / temperature)``. Called once, at load.

        The scale is multiplied, because some models already have one.

        Raises:
            ValueError: the model has fewer than ``vocab_size`` output rows.
        """
        processor = self.model_runner.get_model().logits_processor  # type: ignore[attr-defined]
        processor.scale *= 1.0 / temperature
        if vocab_size > processor.org_vocab_size:
            raise ValueError(f"the model has {processor.org_vocab_size} output rows, fewer than the {vocab_size} asked for")
        processor.org_vocab_size = vocab_size

    def renio_load_adapter(self, chunk: dict[str, Any], lora: dict[str, Any]) -> None:
        """Use a chunk of LoRA factors, laid out as ``HostUpdateInfo``, as the adapter of every later request."""
        from actors.engines.vllm_lora import load_adapter

        arrays, block = open_chunk(chunk.get("arrays"), chunk.get("shared_memory"), chunk.get("spans"))
        load_adapter(self.model_runner.lora_manager, tensors(chunk, arrays), Lora(**lora), self.device)  # type: ignore[attr-defined]
        del arrays, block

    def renio_join(self, init_info: dict[str, Any], file: str) -> None:
        """``init_weight_transfer_engine`` with a new transfer engine per group: the previous group is left.

        Raises:
            TransferAborted: ``file`` was removed. A rendezvous cannot be stopped, so its thread is left behind.
        """
        self.weight_transfer_engine.shutdown()
        config: Any = self.vllm_config  # type: ignore[attr-defined]
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        fresh = WeightTransferEngineFactory.create_engine(config.weight_transfer_config, config, self.device, model)  # type: ignore[attr-defined]
        joined = on_thread(_join, fresh, init_info)
        while not wait([joined], WATCH_SECONDS).done:
            if not os.path.exists(file):
                joined.add_done_callback(lambda _: fresh.shutdown())  # the others may still join
                raise TransferAborted("the rendezvous was aborted")
        joined.result()
        self.weight_transfer_engine = fresh

    def renio_start_update(self) -> None:
        """``start_weight_update``, which also works after an update that was not finished."""
        if forget_update(self.model_runner.get_model()):  # type: ignore[attr-defined]
            self._weight_update_active = True  # a failed update is no longer active
            self.finish_weight_update()  # type: ignore[attr-defined]
        self.start_weight_update()  # type: ignore[attr-defined]

    def renio_receive(self, update_info: dict[str, Any], file: str) -> None:
        """``update_weights`` from a group whose members wait for each other, as long as ``file`` exists.

        Raises:
            TransferAborted: the file was removed. The weights loaded so far may be anything.
        """
        with _watched(file, self.weight_transfer_engine.shutdown):
            self.update_weights(update_info)  # type: ignore[attr-defined]

    def renio_verify_loaded(self) -> None:
        """Raise RuntimeError if a layer did not receive its new weights, which vLLM only logs."""
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        missing = [name for name, layer in model.named_modules() if lacks_weights(model, layer)]
        if missing:
            raise RuntimeError(f"the weight update did not reach {len(missing)} layers: {', '.join(missing[:5])}")

    def renio_repack(self) -> None:
        """Pack what the update left unpacked: see ``layerwise_reload.repack``."""
        repack(self.model_runner.get_model())  # type: ignore[attr-defined]


def _join(engine: Any, init_info: dict[str, Any]) -> None:
    if engine.device.type != "cpu":
        torch.accelerator.set_device_index(engine.device)  # a new thread starts with the first device
    engine.init_transfer_engine(engine.parse_init_info(init_info))


@contextmanager
def _watched(file: str, abort: Callable[[], None]) -> Iterator[None]:
    """Call ``abort`` if the file is removed while the block runs; the block then raises TransferAborted.

    An aborted communicator may raise any error, or return silently without having written anything.
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
            raise TransferAborted("the transfer was aborted")
