"""Choose the weight sender of a backend. Loads torch: the driver does not import this module."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from actors.weight_sync.client import SyncClient
from actors.weight_sync.host_sender import HostSender
from actors.weight_sync.native_sender import NativeSender
from actors.weight_sync.sender import Sender

if TYPE_CHECKING:
    import torch

PACKED_BYTES = 256 * 2**20  # default buffer size of a packed transfer


def largest_tensor(source: Any) -> int:
    """Bytes of the largest tensor that a weight source sends."""
    return max(math.prod(meta.shape) * meta.dtype.itemsize for meta in source.metadata())


def make_sender(
    backend: str,
    source: Any,
    client: SyncClient,
    *,
    rank: int,
    dtype: torch.dtype | None = None,
    address: str = "",
    port: int = 0,
    packed_bytes: int | None = None,
) -> Sender:
    """The weight sender of a backend.

    Args:
        backend: "host", "nccl" or "ipc".
        source: iterates over (name, tensor) and has ``metadata()``, as ``DeepSpeedSource`` does.
        rank: this trainer rank. Rank 0 drives the receivers.
        dtype: used by ``host``, which casts while it writes. The others send tensors as the source yields them.
        address, port: the first rank's, for ``nccl``'s rendezvous.
        packed_bytes: buffer size for ``nccl`` and ``ipc``: see ``sync.packed_bytes``.

    Raises:
        ValueError: ``backend`` is none of these.
    """
    if backend == "host":
        return HostSender(source, client, rank=rank, dtype=dtype)
    if backend == "nccl":
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        # One buffer means one CUDA stream. With two, a layer gathered on one stream could be packed on the other before it is
        # complete. Also, every receiver would hold two buffers beyond its engine's share of the GPU memory.
        info: Any = NCCLTrainerInitInfo(
            master_address=address,
            master_port=port,
            world_size=client.world_size,
            rank=rank,
            packed=True,
            packed_buffer_size_bytes=packed_bytes or PACKED_BYTES,
            packed_num_buffers=1,
        )
    elif backend == "ipc":
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

        # Packed into one reused buffer, which must hold the largest tensor. Otherwise each rank would hold a second model.
        info = IPCTrainerInitInfo(
            rank=rank, packed=True, packed_buffer_size_bytes=packed_bytes or max(PACKED_BYTES, largest_tensor(source))
        )
    else:
        raise ValueError(f"sync.backend {backend!r}: expected host, nccl or ipc")
    return NativeSender(info, source, client, rank=rank)
