"""Weights as byte arrays with their layout: what the host backend publishes and every receiver reads in place.

A chunk is one object in Ray's object store. Where possible its tensors are copied there straight from the trainer's memory: one
copy, and one view per tensor.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from actors.weight_sync.chunked_arrays import split_arrays

FETCH_SECONDS = 1800.0  # default time for a receiver to fetch a chunk
SCRATCH_BYTES = 64 * 2**20  # the smallest block of memory for cast tensors


def put(chunk: Mapping[str, Any], seconds: float = FETCH_SECONDS) -> dict[str, Any]:
    """Publish a chunk: copy its arrays to the object store and replace them by a reference (see ``chunked_arrays.py``).

    A receiver that cannot fetch it within ``seconds`` gives up, because its owner may hang.
    """
    import ray

    layout = {key: value for key, value in chunk.items() if key != "arrays"}
    pieces, counts = split_arrays(chunk["arrays"])
    return layout | {"ref": ray.put(pieces), "pieces": counts, "seconds": seconds}


def size_of(chunk: Mapping[str, Any]) -> int:
    """The bytes of a chunk's tensors."""
    return sum(len(array) for array in chunk["arrays"])


def pack_chunks(
    pairs: Any, chunk_bytes: int, dtype: torch.dtype | None = None, scratch: Scratch | None = None
) -> Iterator[dict[str, Any]]:
    """Group (name, tensor) pairs into chunks of about ``chunk_bytes``, each with its layout.

    A chunk refers to the source's own memory and is valid until the next one is requested, so ``put`` it first. GPU tensors are
    copied to pinned memory asynchronously; the copies are complete when their chunk is yielded.

    Args:
        dtype: the dtype to cast to. None: no cast.
        scratch: memory for tensors that are cast or come from a GPU. None: fresh memory.
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
    """Wait until the copies from this tensor's device are complete."""
    if tensor.is_cuda:
        torch.cuda.current_stream(tensor.device).synchronize()


def _chunk(group: Sequence[tuple[str, torch.dtype, Sequence[int], np.ndarray]]) -> dict[str, Any]:
    names, dtypes, shapes, arrays = (list(column) for column in zip(*group, strict=True))
    return {"names": names, "dtypes": [str(d).removeprefix("torch.") for d in dtypes], "shapes": shapes, "arrays": arrays}


def _bytes_of(tensor: torch.Tensor, dtype: torch.dtype, scratch: Scratch) -> np.ndarray:
    """A tensor's bytes, [n] uint8: its own memory, or a cast copy on the host."""
    flat = tensor.detach().reshape(-1)
    if flat.device.type == "cpu" and flat.dtype == dtype:
        return flat.view(torch.uint8).numpy()
    array = scratch.take(flat.numel() * dtype.itemsize, pinned=flat.is_cuda)
    if flat.is_cuda:
        flat = flat.to(dtype)  # cast on the GPU: a copy to the host that casts would block
    torch.from_numpy(array).view(dtype).copy_(flat, non_blocking=flat.is_cuda)
    return array


class Scratch:
    """Memory for cast tensors, reused for each chunk and each sync, because fresh pages cost more than the copy.

    It grows to the size of the largest chunk, as sent. Either all of it is pinned or none, because a source's tensors are on
    one device. torch rounds pinned memory up to a power of two and keeps it until the process ends.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []
        self._taken: list[np.ndarray] = []
        self._used = 0  # bytes used of the last block taken

    def take(self, size: int, *, pinned: bool = False) -> np.ndarray:
        """An array of [size] uint8, aligned for every dtype and valid until ``reuse``.

        Args:
            pinned: use page-locked memory, to which a GPU copies several times as fast.
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
        """Make all memory that was taken available again."""
        self._free, self._taken = self._free + self._taken, []


def _block(size: int, pinned: bool) -> np.ndarray:
    if pinned:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
    return np.empty(size, np.uint8)  # numpy requests huge pages, torch does not


def tensors(layout: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> list[tuple[str, torch.Tensor]]:
    """The (name, tensor) pairs of a chunk, as views of ``arrays`` ([n] uint8 each)."""
    pairs = []
    with warnings.catch_warnings():  # the memory is read-only, and receivers only read it
        warnings.simplefilter("ignore", UserWarning)
        for name, dtype_name, shape, array in zip(layout["names"], layout["dtypes"], layout["shapes"], arrays, strict=True):
            dtype = getattr(torch, dtype_name)
            typed = torch.from_numpy(array).view(dtype) if len(array) else torch.empty(0, dtype=dtype)
            pairs.append((name, typed.view(shape)))
    return pairs
