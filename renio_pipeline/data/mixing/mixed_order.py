"""The order in which several sources are drawn from: by their shares of the prompts, a function of the seed alone.

A run draws in **slots** of ``samples_per_prompt``, one row each (see ``draw_order.py``). The interval from 0 to 2^64 is divided
among the sources by their shares, in the order of their names, and slot i is of the source in whose part u + i·g mod 2^64 lies,
where u is a hash of the seed, and g is 2^64 over the golden ratio. Of any n slots in a row a source of share p gets n·p, a few
more or less, so that every batch is mixed as the run is.

Within a source, rows are drawn as those of a run with that source alone: pass after pass, with a seed made of the run's and the
source's name. Its samples are counted on their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from renio_pipeline.data.draw_order import DrawOrder
from renio_pipeline.run_dir.data_record import Stretch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 4096  # slots whose sources are counted together


class Interleaving:
    """Which source each slot is of."""

    def __init__(self, shares: Sequence[float], seed: int) -> None:
        """``shares``: of K sources, above 0."""
        exact = [Fraction(share) for share in shares]
        ends = [int(2**64 * end / sum(exact)) for end in accumulate(exact)]
        self._ends = np.array(ends[:-1], np.uint64)  # the last one is 2^64
        self._start = np.uint64(hash_of(f"{seed}"))
        self._counts = [np.zeros(len(exact), np.int64)]  # of the slots before each block
        self._block = lru_cache(4)(self._counted)

    def sources(self, first: int, count: int) -> np.ndarray:
        """The sources of slots ``first`` to ``first + count - 1``: [count] int64."""
        slots = np.arange(first, first + count, dtype=np.uint64)
        return np.searchsorted(self._ends, self._start + slots * _GOLDEN, side="right")

    def before(self, slot: int) -> np.ndarray:
        """How many of the slots before ``slot`` are of each source: [K] int64."""
        block, rest = divmod(slot, _BLOCK)
        while len(self._counts) <= block:
            self._counts.append(self._counts[-1] + self._block(len(self._counts) - 1)[-1])
        found: np.ndarray = self._counts[block] + self._block(block)[rest]
        return found

    def _counted(self, block: int) -> np.ndarray:
        """How many slots of a block are of each source, before each of its slots and in all: [_BLOCK + 1, K] int64."""
        mine = self.sources(block * _BLOCK, _BLOCK)[:, None] == np.arange(len(self._ends) + 1)
        return np.concatenate([np.zeros((1, mine.shape[1]), np.int64), np.cumsum(mine, axis=0)])


class Drawn(NamedTuple):
    """What a sample of the run is within its source."""

    source: int  # the index of its stretch in ``Stretch.parts``
    sample: int  # of that source's own samples


class MixedOrder:
    """Which row each sample of a stretch of several sources is of. Rows are numbered through all sources."""

    def __init__(self, seed: int, samples_per_prompt: int, stretch: Stretch) -> None:
        self._parts, self._repeat = stretch.parts, samples_per_prompt
        self._orders = [
            DrawOrder(len(part.training), source_seed(seed, part.name), samples_per_prompt, part) for part in stretch.parts
        ]
        self._rows_before = [0, *accumulate(len(part.training) for part in stretch.parts)]
        self._interleaving = Interleaving([part.share for part in stretch.parts], seed)
        self._first = stretch.start // samples_per_prompt
        names = [part.name for part in stretch.parts]
        # A slot that was partly drawn when the stretch began stays its source's, whatever the shares are now.
        self._under_way = names.index(stretch.under_way) if stretch.under_way in names else None

    def index(self, sample_id: int) -> int:
        """The index of a sample's row. ``sample_id`` is at least the stretch's start."""
        source, sample = self.drawn_as(sample_id)
        return self._rows_before[source] + self._orders[source].index(sample)

    def drawn_as(self, sample_id: int) -> Drawn:
        """The source of a sample, and which of that source's samples it is."""
        slot, inner = divmod(sample_id, self._repeat)
        source = self._source(slot)
        return Drawn(source, self._sample(source, slot) + inner)

    def positions(self, sample_id: int) -> list[int]:
        """How many samples of each source are drawn before ``sample_id``, by the source's own count."""
        slot, inner = divmod(sample_id, self._repeat)
        found = [self._sample(source, slot) for source in range(len(self._parts))]
        if inner:
            found[self._source(slot)] += inner
        # The slot that the stretch began within counts from its first sample, and the source's stretch from a later one.
        return [max(position, part.start) for position, part in zip(found, self._parts, strict=True)]

    def _source(self, slot: int) -> int:
        if slot == self._first and self._under_way is not None:
            return self._under_way
        return int(self._interleaving.sources(slot, 1)[0])

    def _sample(self, source: int, slot: int) -> int:
        """The first of the source's samples that belong to ``slot`` or a later one."""
        first, before = self._first, self._interleaving.before
        slots = 0 if slot == first else int((before(slot) - before(first + 1))[source]) + (self._source(first) == source)
        return (self._parts[source].start // self._repeat + slots) * self._repeat


def source_seed(seed: int, name: str) -> int:
    """The seed of the order in which a source's own rows are drawn."""
    return hash_of(f"{seed}/{name}")


def hash_of(text: str) -> int:
    """64 bits of it, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def as_before(was: Stretch, position: int, seed: int, samples_per_prompt: int) -> Stretch:
    """What a source draws from its sample ``position`` on if nothing changed, as a stretch that begins there."""
    if position == was.start:
        return was
    order = DrawOrder(len(was.training), seed, samples_per_prompt, was)
    epoch, rest = order.left(position)
    earlier = was.seen if epoch == was.epoch else was.seen[:0]
    seen = np.concatenate([earlier, was.training.identities[order.drawn(position)[1]]])
    return replace(was, start=position, epoch=epoch, first=rest, seen=seen)
