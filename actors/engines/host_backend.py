"""The ``host`` backend of vLLM's weight-transfer API: weights from memory that the node shares.

Importing this module registers the backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import resource_tracker, shared_memory
from typing import Any

import numpy as np
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from actors.weight_sync.wire import tensors


@dataclass
class HostInitInfo(WeightTransferInitInfo):
    """The host backend needs no rendezvous."""


@dataclass
class HostUpdateInfo(WeightTransferUpdateInfo):
    """One chunk of weights in host memory: either ``arrays`` (this process) or ``shared_memory`` (another one)."""

    names: list[str]
    dtypes: list[str]  # torch's names, "float32"
    shapes: list[list[int]]
    arrays: Any = None  # for each tensor, [n] uint8, read in place
    shared_memory: str | None = None
    spans: list[tuple[int, int]] | None = None  # for each tensor, its first byte in the block and the one after its last


class HostWeightTransferEngine(WeightTransferEngine[HostInitInfo, HostUpdateInfo]):
    """Loads weights from shared memory. Nothing is copied before the engine's own load."""

    init_info_cls = HostInitInfo
    update_info_cls = HostUpdateInfo

    def init_transfer_engine(self, init_info: HostInitInfo) -> None:
        """Nothing to do: there is no rendezvous."""

    def start_weight_update(self) -> None:
        self._held: list[Any] = []
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: HostUpdateInfo) -> None:
        arrays, block = open_chunk(update_info.arrays, update_info.shared_memory, update_info.spans)
        self._held += [block, arrays]  # vLLM may read a tensor later, when its layer is complete
        self.model.load_weights(tensors(vars(update_info), arrays))

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        self._held = []

    def shutdown(self) -> None:
        self._held = []


def open_chunk(arrays: Any, name: str | None, spans: Any) -> tuple[Any, Any]:
    """The bytes of a chunk's tensors ([n] uint8 each), and the memory block that must outlive them."""
    if name is None:
        return arrays, None
    block = _attach(name)
    return [np.ndarray(end - start, np.uint8, block.buf, start) for start, end in spans], block


def _attach(name: str) -> shared_memory.SharedMemory:
    """Attach without registering the block with this process's resource tracker, which would unlink it at exit."""
    register = resource_tracker.register
    resource_tracker.register = lambda *_: None  # track=False exists only since Python 3.13
    try:
        return shared_memory.SharedMemory(name)
    finally:
        resource_tracker.register = register


WeightTransferEngineFactory.register_engine("host", HostWeightTransferEngine)
