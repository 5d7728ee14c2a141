"""Arrays in pieces, as the object store copies them at the least cost, and whole again where they are read.

Ray copies every array of more than PIECE_BYTES on six threads that it starts for it, which costs as much as to copy 4 MiB.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

PIECE_BYTES = 2**20  # the most that Ray copies without threads
WHOLE_BYTES = 16 * 2**20  # of an array that is worth the threads


def split(arrays: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """Views of the arrays ([n] uint8 each) in pieces, and how many each array has."""
    pieces = [_pieces(array) for array in arrays]
    return list(itertools.chain.from_iterable(pieces)), [len(of_one) for of_one in pieces]


def joined(pieces: Sequence[np.ndarray], counts: Sequence[int]) -> list[np.ndarray]:
    """The arrays that were ``split``, in place where the store has laid their pieces one after another, as Ray does."""
    left = iter(pieces)
    return [_join(list(itertools.islice(left, count))) for count in counts]


def _pieces(array: np.ndarray) -> list[np.ndarray]:
    size = len(array)
    if size <= PIECE_BYTES or size >= WHOLE_BYTES:
        return [array]
    return [array[start : start + PIECE_BYTES] for start in range(0, size, PIECE_BYTES)]


def _join(pieces: Sequence[np.ndarray]) -> np.ndarray:
    if len(pieces) == 1:
        return pieces[0]
    starts = [piece.__array_interface__["data"][0] for piece in pieces]
    ends = [start + len(piece) for start, piece in zip(starts, pieces, strict=True)]
    if starts[1:] != ends[:-1]:
        return np.concatenate(pieces)
    # The view keeps the first piece, and that the whole object: its pieces have one owner.
    return np.lib.stride_tricks.as_strided(pieces[0], (ends[-1] - starts[0],), (1,), writeable=False)
