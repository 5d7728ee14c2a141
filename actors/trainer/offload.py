"""Moves a rank's optimizer state to host memory while a generator uses the GPU.

DeepSpeed has ``offload_states`` for this, but at ZeRO 3 only with its own compiled Adam, and not at ZeRO 0.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from deepspeed import DeepSpeedEngine


@dataclass
class HostState:
    """``offload()`` and ``onload()`` move the moments and the fp32 master weights; the model's weights stay on the GPU.

    The storages are emptied and refilled rather than replaced: DeepSpeed keeps many views of them, which stay valid. While the
    state is offloaded it must not be read, so no step and no checkpoint may run.
    """

    engine: DeepSpeedEngine
    _away: list[tuple[torch.UntypedStorage, torch.Tensor]] = field(default_factory=list)
    _buffers: dict[int, torch.Tensor] = field(default_factory=dict)  # by storage; kept, because pinning memory is slow

    def offload(self) -> None:
        """Move the state to host memory. No effect if it is already there."""
        if self._away:
            return
        for tensor in _movable(self.engine):
            if not tensor.untyped_storage().resizable():  # it was loaded from a checkpoint file and cannot be emptied
                tensor.data = tensor.data.clone()
        for storage in _optimizer_storages(self.engine):
            there = _bytes(storage)
            host = self._buffer(storage, there)
            host.copy_(there)
            self._away.append((storage, host))
            storage.resize_(0)

    def onload(self) -> None:
        """Move the state back to the GPU, bit for bit."""
        away, self._away = self._away, []
        for storage, host in away:
            storage.resize_(host.numel())
            _bytes(storage).copy_(host)

    def _buffer(self, storage: torch.UntypedStorage, like: torch.Tensor) -> torch.Tensor:
        import torch

        key = storage._cdata
        found = self._buffers.get(key)
        if found is None or found.numel() != like.numel():
            found = self._buffers[key] = torch.empty_like(like, device="cpu", pin_memory=like.is_cuda)
        return found


def free_cached() -> None:
    """Free the GPU memory that torch caches, so that other processes can use it."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    import torch

    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _optimizer_storages(engine: DeepSpeedEngine) -> list[torch.UntypedStorage]:
    """The storages that are not empty, each once."""
    storages = [tensor.untyped_storage() for tensor in _movable(engine)]
    return list({storage.data_ptr(): storage for storage in storages if storage.nbytes()}.values())


def _movable(engine: DeepSpeedEngine) -> list[torch.Tensor]:
    """The optimizer's tensors on the engine's device, except the model's own weights."""
    own = {t.untyped_storage().data_ptr() for t in _model_tensors(engine)}
    found = [t for t in _optimizer_tensors(engine.optimizer) if t.device.type == engine.device.type]
    return [t for t in found if t.untyped_storage().data_ptr() not in own]


def _model_tensors(engine: DeepSpeedEngine) -> Iterator[torch.Tensor]:
    for parameter in engine.module.parameters():
        yield getattr(parameter, "ds_tensor", parameter)  # at ZeRO 3, this rank's shard


def _optimizer_tensors(optimizer: Any) -> Iterator[torch.Tensor]:
    """Master weights and moments; of a sharded optimizer, this rank's shard."""
    import torch

    inner = getattr(optimizer, "optimizer", optimizer)  # DeepSpeed's optimizer wraps torch's
    for group in inner.param_groups:
        yield from group["params"]
    yield from getattr(optimizer, "fp32_partitioned_groups_flat", ())  # at ZeRO 3 the groups are empty except during a step
    for master, state in inner.state.items():
        yield master
        yield from (value for value in state.values() if torch.is_tensor(value))
