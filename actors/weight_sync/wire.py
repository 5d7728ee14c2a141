"""Weights as byte arrays with their layout beside them: what the host backend publishes and every receiver reads in place.

A chunk is one object of the store. Its tensors go there straight from the trainer's memory where they can: one copy, and no
Python per tensor but a view.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from actors.weight_sync.chunked_arrays import split_arrays

FETCH_SECONDS = 1800.0  # for a receiver to have a chunk, where nobody says otherwise
SCRATCH_BYTES = 64 * 2**20  # at least, of a block for tensors that are cast


def put(chunk: Mapping[str, Any], seconds: float = FETCH_SECONDS) -> dict[str, Any]:
    """Publish a chunk: its arrays are copied to the object store, and references take their places (``chunked_arrays.py``).

    A receiver that does not have them within ``seconds`` gives up: their owner may hang.
    """
    import ray

    layout = {key: value for key, value in chunk.items() if key != "arrays"}
    pieces, counts = split_arrays(chunk["arrays"])
    return layout | {"ref": ray.put(pieces), "pieces": counts, "seconds": seconds}


def size_of(chunk: Mapping[str, Any]) -> int:
    """Bytes of its tensors."""
    return sum(len(array) for array in chunk["arrays"])


def pack_chunks(
    pairs: Any, chunk_bytes: int, dtype: torch.dtype | None = None, scratch: Scratch | None = None
) -> Iterator[dict[str, Any]]:
    """Group (name, tensor) pairs into chunks of about ``chunk_bytes``, with their layout beside them.

    A chunk is of the source's own memory, and is good until the next one is asked for: ``put`` it first. Tensors of a GPU are
    copied into pinned memory, side by side with what the host does, and have arrived when their chunk is yielded.

    Args:
        dtype: what the tensors become; None: they stay as they are.
        scratch: memory for what is cast, or comes from a GPU; None: fresh memory.
    """
    scratch = scratch or Scratch()
    scratch.reuse()
    group: list[tuple[str, torch.dtype, Sequence[int], np.ndarray]] = []
    size = 0
    for name, tensor in pairs:
        sent_as = dtype or tensor.dtype
        group.append((name, sent_as, list(tensor.shape), _bytes_of(tensor, sent_as, scratch)))
        size += len(group[-1][-1])
        if size >= chunk_bytes:
            _arrived(tensor)
            yield _chunk(group)
            group, size = [], 0
            scratch.reuse()
    if group:
        _arrived(tensor)
        yield _chunk(group)


def _arrived(tensor: torch.Tensor) -> None:
    """Wait for the copies of this tensor's device."""
    if tensor.is_cuda:
        torch.cuda.current_stream(tensor.device).synchronize()


def _chunk(group: Sequence[tuple[str, torch.dtype, Sequence[int], np.ndarray]]) -> dict[str, Any]:
    names, dtypes, shapes, arrays = (list(column) for column in zip(*group, strict=True))
    return {"names": names, "dtypes": [str(d).removeprefix("torch.") for d in dtypes], "shapes": shapes, "arrays": arrays}


def _bytes_of(tensor: torch.Tensor, dtype: torch.dtype, scratch: Scratch) -> np.ndarray:
    """[n] uint8: the tensor's own memory, or a cast copy on the host."""
    flat = tensor.detach().reshape(-1)
    if flat.device.type == "cpu" and flat.dtype == dtype:
        return flat.view(torch.uint8).numpy()
    array = scratch.take(flat.numel() * dtype.itemsize, pinned=flat.is_cuda)
    if flat.is_cuda:
        flat = flat.to(dtype)  # cast there: a copy that casts on its way to the host waits for its end
    torch.from_numpy(array).view(dtype).copy_(flat, non_blocking=flat.is_cuda)
    return array


class Scratch:
    """Memory for what has to be cast, used again for each chunk and each sync: fresh pages cost more than a copy does.

    It grows to the bytes of the largest chunk, as sent. All of it is pinned, or none: a source's tensors are on one device. Of
    pinned memory torch takes the next power of two, and keeps it for the life of the process.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []
        self._taken: list[np.ndarray] = []
        self._used = 0  # bytes of the last taken block

    def take(self, size: int, *, pinned: bool = False) -> np.ndarray:
        """[size] uint8, aligned for every dtype, until ``reuse``.

        Args:
            pinned: in page-locked memory, to which a GPU copies several times as fast as to any other.
        """
        if not self._taken or self._used + size > len(self._taken[-1]):
            block = min((free for free in self._free if len(free) >= size), key=len, default=None)
            if block is None:
                block = _block(max(size, SCRATCH_BYTES), pinned)
            else:
                self._free = [free for free in self._free if free is not block]
            self._taken.append(block)
            self._used = 0
        start, self._used = self._used, self._used + -(-size // 64) * 64
        return self._taken[-1][start : start + size]

    def reuse(self) -> None:
        """All that was taken is free again."""
        self._free, self._taken = self._free + self._taken, []


def _block(size: int, pinned: bool) -> np.ndarray:
    if pinned:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
    return np.empty(size, np.uint8)  # numpy asks for huge pages, torch does not


def tensors(layout: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> list[tuple[str, torch.Tensor]]:
    """Views of a chunk's (name, tensor) pairs, in place."""
    pairs = []
    with warnings.catch_warnings():  # the memory is read-only, and so is what receivers do with it
        warnings.simplefilter("ignore", UserWarning)
        for name, dtype_name, shape, array in zip(layout["names"], layout["dtypes"], layout["shapes"], arrays, strict=True):
            dtype = getattr(torch, dtype_name)
            typed = torch.from_numpy(array).view(dtype) if len(array) else torch.empty(0, dtype=dtype)
            pairs.append((name, typed.view(shape)))
    return pairs
