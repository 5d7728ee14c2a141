"""One of two processes that run collectives. Runs on a node: see ``actors.doctor``."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

ELEMENTS = 4 * 2**20  # 16 MiB of float32
ROUNDS = 5


def collective(rank: int, backend: str, address: str, port: int, seconds: float) -> dict[str, Any]:
    """All-reduce and broadcast with the other rank; ``correct``, ``bandwidth`` in bytes/s and visible ``devices``."""
    import torch
    import torch.distributed as dist

    devices = torch.cuda.device_count() if backend == "nccl" else None
    device = torch.device("cuda", 0) if backend == "nccl" else torch.device("cpu")
    limit = timedelta(seconds=seconds)
    host = f"[{address}]" if ":" in address else address
    dist.init_process_group(backend, f"tcp://{host}:{port}", timeout=limit, world_size=2, rank=rank)
    try:
        numbers = torch.arange(ELEMENTS, device=device, dtype=torch.float32) % 97
        reduced = numbers * (rank + 1)
        dist.all_reduce(reduced)
        sent = numbers + 1 if rank else torch.zeros_like(numbers)
        dist.broadcast(sent, src=1)
        correct = torch.equal(reduced, 3 * numbers) and torch.equal(sent, numbers + 1)
        return {"correct": correct, "bandwidth": _bandwidth(reduced), "devices": devices}
    finally:
        dist.destroy_process_group()


def _bandwidth(tensor: Any) -> float:
    import torch
    import torch.distributed as dist

    def wait() -> None:
        if tensor.is_cuda:
            torch.cuda.synchronize()
        dist.barrier()

    wait()
    begun = time.perf_counter()
    for _ in range(ROUNDS):
        dist.all_reduce(tensor)
    wait()
    return ROUNDS * tensor.nbytes / (time.perf_counter() - begun)
