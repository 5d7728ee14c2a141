"""How a step's batch is split: over ranks by tokens, into micro-batches by a token budget, and micro-batches into rows.

The split never changes a result, because every sample's share of the loss already uses the step's global denominators.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from typing import Protocol, TypeVar

ATTENTION_TOKENS = 8192  # the length at which attention costs about as much as all other layers
ROW_CHOICES = 32  # how many numbers of rows are tried


class Sized(Protocol):
    @property
    def tokens(self) -> int: ...


S = TypeVar("S", bound=Sized)


def balance(samples: Sequence[S], ranks: int) -> list[list[S]]:
    """Distribute samples over ranks with nearly equal token sums: longest first, each to the rank with the fewest tokens."""
    shares: list[list[S]] = [[] for _ in range(ranks)]
    loads = [(0, rank) for rank in range(ranks)]
    for sample in sorted(samples, key=lambda s: -s.tokens):
        load, rank = loads[0]
        shares[rank].append(sample)
        heapq.heapreplace(loads, (load + sample.tokens, rank))
    return shares


def pack(samples: Sequence[S]) -> list[list[S]]:
    """Lay sequences end to end in rows of nearly equal length. All rows are padded to the longest row.

    Fewer rows fill better; shorter rows cost less attention, which grows with the square of the row. The cheapest number of
    rows is taken.
    """
    tokens = sorted((s.tokens for s in samples), reverse=True)
    if not tokens:
        return []
    total, longest = sum(tokens), tokens[0]
    most = total // max(1, longest)
    numbers = range(most, 0, -(most // ROW_CHOICES + 1))
    # Each number of rows has a lower bound on its cost, so only the few that might win are laid out.
    best = (_cost(len(tokens), longest), 1)  # unpacked; packed candidates carry their number of rows, negated
    for bound, minus in sorted((_cost(n, max(longest, -(-total // n))), -n) for n in numbers):
        if bound > best[0]:
            break
        best = min(best, (_cost(-minus, _balanced_width(tokens, -minus)), minus))
    return balance(samples, -best[1]) if best[1] < 0 else unpacked(samples)


def _cost(rows: int, width: int) -> int:
    return rows * width * (ATTENTION_TOKENS + width)


def _balanced_width(tokens: Sequence[int], rows: int) -> int:
    """The largest number of tokens that ``balance`` gives a row. ``tokens``: lengths in descending order."""
    loads = [0] * rows
    for count in tokens:
        heapq.heapreplace(loads, loads[0] + count)
    return max(loads)


def unpacked(samples: Sequence[S]) -> list[list[S]]:
    """One row per sequence."""
    return [[s] for s in samples]


def one_row(samples: Sequence[S]) -> list[list[S]]:
    """All sequences in one row, without padding: for attention whose cost does not grow with the row."""
    return [list(samples)] if samples else []


def area(rows: Sequence[Sequence[Sized]]) -> int:
    """The tokens that these rows compute, including padding."""
    return len(rows) * _width(rows)


def _width(rows: Sequence[Sequence[Sized]]) -> int:
    return max((sum(s.tokens for s in row) for row in rows), default=0)


def micro_batches(samples: Sequence[S], max_tokens: int, *, packing: bool = True) -> list[list[S]]:
    """Group samples of similar length so that the area of their rows stays within ``max_tokens``.

    A sample longer than ``max_tokens`` forms a micro-batch of its own.
    """
    lay = pack if packing else unpacked
    left = sorted(samples, key=lambda s: -s.tokens)
    batches: list[list[S]] = []
    while left:
        sums = itertools.accumulate(s.tokens for s in left)
        count = max(1, sum(1 for tokens in itertools.takewhile(lambda t: t <= max_tokens, sums)))
        while count > 1 and area(lay(left[:count])) > max_tokens:
            count -= max(1, count // 50)
        batches.append(left[:count])
        left = left[count:]
    return batches


def plan(samples: Sequence[S], ranks: int, max_tokens: int, *, packing: bool = True) -> list[list[list[S]]]:
    """The micro-batches of each rank. All ranks get the same number, because backward is a collective; some may be empty."""
    shares = [micro_batches(share, max_tokens, packing=packing) for share in balance(samples, ranks)]
    longest = max(len(share) for share in shares)
    return [share + [[] for _ in range(longest - len(share))] for share in shares]
