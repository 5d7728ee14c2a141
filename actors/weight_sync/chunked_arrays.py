"""Arrays split into pieces that the object store copies most cheaply, and joined again where they are read.

Ray copies an array of more than PIECE_BYTES on six threads, which it starts for that one copy. Starting them costs as much as
copying 4 MiB.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

PIECE_BYTES = 2**20  # the largest array that Ray copies without threads
WHOLE_BYTES = 16 * 2**20  # from this size on, an array is worth the threads and stays whole


def split_arrays(arrays: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """Split arrays ([n] uint8 each). Returns the pieces, which are views, and the number of pieces of each array."""
    pieces = [_pieces(array) for array in arrays]
    return list(itertools.chain.from_iterable(pieces)), [len(of_one) for of_one in pieces]


def join_arrays(pieces: Sequence[np.ndarray], counts: Sequence[int]) -> list[np.ndarray]:
    """The inverse of ``split_arrays``: arrays of [n] uint8.

    Pieces that lie one after another in memory, as Ray stores them, are joined without a copy.
    """
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
    # The view keeps the first piece alive, and with it the whole object: all of an object's pieces have one owner.
    return np.lib.stride_tricks.as_strided(pieces[0], (ends[-1] - starts[0],), (1,), writeable=False)
