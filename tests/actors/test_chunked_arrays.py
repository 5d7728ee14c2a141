"""Arrays that were split are joined again: in place where their pieces lie as the store lays them, by a copy elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.weight_sync import chunked_arrays
from actors.weight_sync.chunked_arrays import join_arrays, split_arrays

ALIGNED = 64  # what Ray aligns a buffer to
PIECE, WHOLE = 128, 1024


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    with mock.patch.multiple(chunked_arrays, PIECE_BYTES=PIECE, WHOLE_BYTES=WHOLE):
        yield


def laid_out(found: list[np.ndarray], gap: int) -> list[np.ndarray]:
    """Copies of the pieces in one block, each at the next aligned place, ``gap`` bytes further."""
    starts = np.cumsum([0, *(-(-len(p) // ALIGNED) * ALIGNED + gap for p in found)])
    block = np.zeros(starts[-1] + 1, np.uint8)
    copies = [block[start : start + len(p)] for start, p in zip(starts, found, strict=False)]
    for copy, piece in zip(copies, found, strict=True):
        copy[:] = piece
    return copies


@given(sizes=st.lists(st.integers(0, 1500), max_size=6), gap=st.sampled_from([0, 64]))
def test_arrays_are_whole_again_wherever_their_pieces_lie(sizes: list[int], gap: int) -> None:
    rng = np.random.default_rng(len(sizes))
    arrays = [rng.integers(0, 256, size, np.uint8) for size in sizes]
    found, counts = split_arrays(arrays)
    copies = laid_out(found, gap)
    for array, again, count in zip(arrays, join_arrays(copies, counts), counts, strict=True):
        np.testing.assert_array_equal(again, array)
        in_place = any(np.shares_memory(again, c) for c in copies)
        assert in_place == bool(len(array)) if count == 1 or not gap else not in_place


def test_what_ray_would_copy_on_threads_for_little_is_split_and_nothing_else() -> None:
    _, counts = split_arrays([np.zeros(n, np.uint8) for n in (0, PIECE, PIECE + 1, WHOLE - 1, WHOLE, 10 * WHOLE)])
    assert counts == [1, 1, 2, WHOLE // PIECE, 1, 1]


def test_pieces_are_views() -> None:
    array = np.zeros(3 * PIECE, np.uint8)
    assert all(np.shares_memory(piece, array) for piece in split_arrays([array])[0])


def test_a_joined_array_cannot_be_written_to() -> None:
    found, counts = split_arrays([np.zeros(3 * PIECE, np.uint8)])
    (again,) = join_arrays(laid_out(found, 0), counts)
    with pytest.raises(ValueError, match="read-only"):
        again[0] = 1
