"""What is published is what is read, bit for bit, from the trainer's own memory where nothing has to be cast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from actors.weight_sync import wire
from actors.weight_sync.wire import pack_chunks, tensors

PAIRS = [
    ("matrix", torch.randn(7, 5)),
    ("transposed", torch.randn(6, 4).T),
    ("scalar", torch.tensor(2.5)),
    ("none", torch.empty(0, 3)),
    ("half", torch.randn(9).to(torch.bfloat16)),
    ("whole", torch.arange(11)),
]


@pytest.fixture
def small_blocks(monkeypatch: Any) -> None:
    monkeypatch.setattr(wire, "SCRATCH_BYTES", 128)


def received(chunk_bytes: int, dtype: torch.dtype | None = None) -> list[tuple[str, torch.Tensor]]:
    """Each chunk is copied before the next is asked for, as ``put`` does."""
    found = []
    for chunk in pack_chunks(PAIRS, chunk_bytes, dtype):
        found += tensors(chunk, [array.copy() for array in chunk["arrays"]])
    return found


@pytest.mark.parametrize("chunk_bytes", [1, 100, 10**6])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float64], ids=str)
def test_every_tensor_arrives_with_its_name_its_shape_and_every_bit(
    small_blocks: None, chunk_bytes: int, dtype: torch.dtype | None
) -> None:
    got = received(chunk_bytes, dtype)
    assert [name for name, _ in got] == [name for name, _ in PAIRS]
    for (name, tensor), (_, sent) in zip(got, PAIRS, strict=True):
        assert (tensor.dtype, tensor.shape) == (dtype or sent.dtype, sent.shape), name
        assert torch.equal(tensor, sent.to(tensor.dtype)), name


def test_a_tensor_of_the_right_dtype_is_not_copied_before_it_is_put() -> None:
    weights = torch.randn(1000)
    (chunk,) = pack_chunks([("weights", weights)], 10**6, torch.float32)
    assert np.shares_memory(chunk["arrays"][0], weights.numpy())


def test_chunks_are_as_large_as_asked_and_hold_a_tensor_that_is_larger_whole() -> None:
    pairs = [(str(i), torch.zeros(n, dtype=torch.uint8)) for i, n in enumerate([40, 40, 40, 500, 10])]
    assert [wire.size_of(chunk) for chunk in pack_chunks(pairs, 80)] == [80, 540, 10]


def test_casting_takes_memory_for_one_chunk_once(small_blocks: None, monkeypatch: Any) -> None:
    taken = []
    empty = np.empty

    def counting(size: int, dtype: Any) -> np.ndarray:
        taken.append(size)
        return empty(size, dtype)

    monkeypatch.setattr(np, "empty", counting)
    pairs = [(str(i), torch.full((32,), float(i))) for i in range(20)]  # 64 bytes each, as sent
    scratch = wire.Scratch()
    for _ in range(3):
        for i, chunk in enumerate(pack_chunks(pairs, 256, torch.bfloat16, scratch)):
            assert [float(t[0]) for _, t in tensors(chunk, chunk["arrays"])] == [4.0 * i + j for j in range(4)]
    assert sum(taken) == 256
