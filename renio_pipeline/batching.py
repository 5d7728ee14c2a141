"""How a step's batch is split: over ranks by tokens, and into micro-batches by a token budget.

The split never changes a result: every sample's share of the loss has the step's global denominators already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Sized(Protocol):
    @property
    def tokens(self) -> int: ...


S = TypeVar("S", bound=Sized)


def balance(samples: Sequence[S], ranks: int) -> list[list[S]]:
    """Share samples over ranks so that the ranks' token sums are close (longest first, to the rank with fewest tokens)."""
    shares: list[list[S]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for sample in sorted(samples, key=lambda s: -s.tokens):
        rank = loads.index(min(loads))
        shares[rank].append(sample)
        loads[rank] += sample.tokens
    return shares


def micro_batches(samples: Sequence[S], max_tokens: int) -> list[list[S]]:
    """Group samples of similar length, so that longest x count stays within ``max_tokens``. A longer sample goes alone."""
    batches: list[list[S]] = []
    for sample in sorted(samples, key=lambda s: -s.tokens):
        if batches and batches[-1][0].tokens * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(sample)
        else:
            batches.append([sample])
    return batches


def plan(samples: Sequence[S], ranks: int, max_tokens: int) -> list[list[list[S]]]:
    """Micro-batches of each rank. Every rank gets the same number, because backward is a collective: some may be empty."""
    shares = [micro_batches(share, max_tokens) for share in balance(samples, ranks)]
    longest = max(len(share) for share in shares)
    return [share + [[] for _ in range(longest - len(share))] for share in shares]
