"""The order in which rows are drawn: a function of the seed, and after a change of the data also of what was drawn before.

Samples are drawn in **slots** of ``samples_per_prompt``, one row each. A **pass** draws every row once, in an order of its own:
pass e of N rows is ``default_rng([seed, e]).permutation(N)``. Where the data changed after sample s, in pass e, the pass is
completed from the rows of the new data that it has not drawn yet, in the order ``default_rng([seed, e, s]).permutation``, after
the row that was partly drawn at s, if it is still there. Passes after that are the usual ones, over the new rows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np

from renio_pipeline.run_dir.data_record import Stretch


class Order(Protocol):
    """Which row each sample is of."""

    def index(self, sample_id: int) -> int: ...


class DrawOrder:
    """Which row each sample of a stretch is of."""

    def __init__(self, rows: int, seed: int, samples_per_prompt: int, stretch: Stretch) -> None:
        """``rows``: N, of the stretch."""
        self._rows, self._seed, self._repeat, self._stretch = rows, seed, samples_per_prompt, stretch
        self._first_slot = stretch.start // samples_per_prompt
        self._left = rows if stretch.first is None else len(stretch.first)  # rows of the pass that the stretch begins in
        self._order = lru_cache(2)(self._order_of)  # lookahead may stand at the end of a pass

    def index(self, sample_id: int) -> int:
        """The index of a sample's row. ``sample_id`` is at least the stretch's start."""
        epoch, place = self._place(sample_id)
        return int(self._order(epoch)[place])

    def drawn(self, position: int) -> tuple[int, np.ndarray]:
        """The pass that sample ``position`` is in, and the rows that the stretch has drawn in it before that, if only partly.

        Returns:
            The number of the pass, and indices [k] int64.
        """
        epoch, place = self._place(position)
        return epoch, self._order(epoch)[: place + bool(position % self._repeat)]

    def left(self, position: int) -> tuple[int, np.ndarray]:
        """The pass that sample ``position`` is in, and the rows that it draws from then on: indices [k] int64."""
        epoch, place = self._place(position)
        return epoch, self._order(epoch)[place:]

    def _place(self, sample_id: int) -> tuple[int, int]:
        assert sample_id >= self._stretch.start, f"sample {sample_id} is before the stretch from {self._stretch.start} on"
        place = sample_id // self._repeat - self._first_slot
        if place < self._left:
            return self._stretch.epoch, place
        later, place = divmod(place - self._left, self._rows)
        return self._stretch.epoch + 1 + later, place

    def _order_of(self, epoch: int) -> np.ndarray:
        if epoch == self._stretch.epoch and self._stretch.first is not None:
            return self._stretch.first
        return np.random.default_rng([self._seed, epoch]).permutation(self._rows)


def continued(was: Stretch, position: int, identities: np.ndarray, seed: int, samples_per_prompt: int) -> Stretch:
    """How a run goes on from sample ``position`` with other rows than ``was`` has. Their fingerprints are the caller's to add.

    Args:
        identities: [N] of the rows that there are now.
    """
    order = DrawOrder(len(was.training), seed, samples_per_prompt, was)
    epoch, seen = was.epoch, was.seen
    if position > was.start:  # otherwise ``was`` has drawn nothing
        epoch, drawn = order.drawn(position)
        earlier = was.seen if epoch == was.epoch else was.seen[:0]
        seen = np.concatenate([earlier, was.training.identities[drawn]])
    under_way = was.training.identities[[order.index(position)] if position % samples_per_prompt else []]
    unseen = np.flatnonzero(~np.isin(identities, np.concatenate([seen, under_way])))
    rest = np.random.default_rng([seed, epoch, position]).permutation(unseen)
    first = np.concatenate([np.flatnonzero(np.isin(identities, under_way)), rest])
    return Stretch(start=position, epoch=epoch, first=first.astype(np.int64), seen=seen)
