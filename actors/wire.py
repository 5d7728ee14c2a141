"""Weights as flat byte arrays with their layout beside them: what the host backend publishes and every receiver reads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

FETCH_SECONDS = 1800.0  # for a receiver to have a chunk, where nobody says otherwise


def put(chunk: dict[str, Any], seconds: float = FETCH_SECONDS) -> dict[str, Any]:
    """Publish a chunk: its array goes to the object store, and a reference takes its place.

    A receiver that does not have the array within ``seconds`` gives up: its owner may hang.
    """
    import ray

    layout = {key: value for key, value in chunk.items() if key != "array"}
    return layout | {"ref": ray.put(chunk["array"]), "seconds": seconds}


def pack_chunks(pairs: Any, chunk_bytes: int) -> Iterator[dict[str, Any]]:
    """Group (name, tensor) pairs into flat byte arrays of about ``chunk_bytes``, with their layout beside them."""
    group: list[tuple[str, torch.Tensor]] = []
    size = 0
    for name, tensor in pairs:
        group.append((name, tensor))
        size += tensor.nbytes
        if size >= chunk_bytes:
            yield _pack(group)
            group, size = [], 0
    if group:
        yield _pack(group)


def _pack(group: Sequence[tuple[str, torch.Tensor]]) -> dict[str, Any]:
    offsets = []
    end = 0
    for _, tensor in group:
        offsets.append(end)
        end += -(-tensor.nbytes // 64) * 64  # aligned, so that any dtype can be viewed in place
    array = np.empty(end, np.uint8)
    flat = torch.from_numpy(array)
    for offset, (_, tensor) in zip(offsets, group, strict=True):
        flat[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)
    return {
        "names": [name for name, _ in group],
        "dtypes": [str(tensor.dtype).removeprefix("torch.") for _, tensor in group],
        "shapes": [list(tensor.shape) for _, tensor in group],
        "offsets": offsets,
        "array": array,
    }


def tensors(layout: Mapping[str, Any], array: np.ndarray) -> list[tuple[str, torch.Tensor]]:
    """Views of a chunk's (name, tensor) pairs, in place."""
    with warnings.catch_warnings():  # the memory is read-only, and so is what receivers do with it
        warnings.simplefilter("ignore", UserWarning)
        flat = torch.from_numpy(array)
    pairs = []
    columns = (layout[key] for key in ("names", "dtypes", "shapes", "offsets"))
    for name, dtype_name, shape, offset in zip(*columns, strict=True):
        dtype = getattr(torch, dtype_name)
        size = int(np.prod(shape)) * dtype.itemsize
        pairs.append((name, flat[offset : offset + size].view(dtype).view(shape)))
    return pairs
