"""Which tokens two vocabularies share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from renio_pipeline.alignment.token_bytes import TokenBytes

NOT_SHARED = -1
Names = Mapping[int, str]  # of tokens, by id


def shared_tokens(
    teacher: tuple[TokenBytes, Names], student: tuple[TokenBytes, Names], ends: Mapping[int, int], rows: int
) -> np.ndarray:
    """The student's token for each of the teacher's: [rows] int32, NOT_SHARED where there is none.

    Tokens are shared that stand for the same bytes, special tokens of the same name, and the ends. No token is in two pairs:
    of a side's tokens for the same bytes the last one counts, because SentencePiece's tokens of single bytes come first.

    Args:
        ends: the student's end for each of the teacher's.
        rows: of the teacher's output head.
    """
    pairs: dict[int, int] = {}
    for by_key in (_by_bytes, _by_name):
        theirs, own = by_key(*teacher), by_key(*student)
        pairs |= {i: own[key] for key, i in theirs.items() if key in own}
    taken = set(ends.values())
    pairs = {i: own for i, own in pairs.items() if own not in taken} | dict(ends)
    found = np.full(rows, NOT_SHARED, np.int32)
    inside = [i for i in pairs if i < rows]
    found[inside] = [pairs[i] for i in inside]
    return found


def _by_bytes(known: TokenBytes, names: Names) -> dict[bytes | str, int]:
    return {piece: i for i, piece in enumerate(known.table) if piece}


def _by_name(known: TokenBytes, names: Names) -> dict[bytes | str, int]:
    """Special tokens alone: those that stand for no bytes."""
    return {name: i for i, name in names.items() if not (i < len(known.table) and known.table[i])}
