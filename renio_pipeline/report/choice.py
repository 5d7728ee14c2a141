"""Choosing the steps that a page shows: as many as there is room for, or those that the user asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from renio_pipeline.config import ConfigError

T = TypeVar("T")
MOST_STEPS = 10_000


def spread(items: Sequence[T], count: int) -> list[T]:
    """The first item, the last, and evenly spaced ones between; all if there are at most ``count``.

    >>> spread(range(1, 11), 4)
    [1, 4, 7, 10]
    """
    if count >= len(items):
        return list(items)
    return [items[round(i)] for i in np.linspace(0, len(items) - 1, max(1, count))]


def fitting(items: Sequence[T], sizes: Sequence[int], room: int, least: int = 1) -> list[T]:
    """As many evenly spaced ``items`` as fit into ``room`` by their ``sizes``, but at least ``least``."""
    if sum(sizes) <= room:
        return list(items)
    return spread(items, max(least, room // max(sizes)))


def parse_steps(text: str) -> list[int]:
    """Parse steps such as ``1,10,50-52``. Raises ConfigError for anything else."""
    steps: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdigit() for end in ends) or not 1 <= int(ends[0]) <= int(ends[1]):
            raise ConfigError(f"--steps: expected steps and ranges such as 1,10,50-52, got {text!r}")
        if int(ends[1]) - int(ends[0]) >= MOST_STEPS:
            raise ConfigError(f"--steps: {part.strip()} is more than {MOST_STEPS} steps; give fewer")
        steps += range(int(ends[0]), int(ends[1]) + 1)
    return sorted(set(steps))
