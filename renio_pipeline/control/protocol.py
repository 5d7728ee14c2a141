"""The protocol between a live run's driver and the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from renio_pipeline.config import ConfigError

NAMESPACE = "renio"  # of Ray: the live runs are the named actors in it
_SCALABLE = re.compile(r"generator|teacher(\.[^.=\s]+)?")


class Refused(ValueError):
    """The driver refuses a command; the text says why. Pickled between processes."""


class Ended(Refused):
    """The run has ended or is ending."""


class Unanswered(TimeoutError):
    """The driver did not answer in time. Pickled between processes."""


def parse_sizes(pairs: Sequence[str]) -> dict[str, int]:
    """``["generator=4", "teacher.maths=2"]`` -> replicas wanted, by pool.

    Raises:
        ConfigError: no pair, a pair that is not POOL=N, a pool that keeps its size, one given twice, N not a positive integer.

    >>> parse_sizes(["generator=4", "teacher.maths=2"])
    {'generator': 4, 'teacher.maths': 2}
    """
    sizes: dict[str, int] = {}
    for pair in pairs:
        pool, equals, number = pair.partition("=")
        if not equals:
            raise ConfigError(f"scale: {pair!r}: expected POOL=REPLICAS, for example generator=4")
        if not _SCALABLE.fullmatch(pool):
            raise ConfigError(f"scale: {pool!r} has no size to change; allowed: generator, teacher, or teacher.NAME of several")
        if pool in sizes:
            raise ConfigError(f"scale: {pool} is given twice, {sizes[pool]} and {number}")
        if not re.fullmatch("[0-9]{1,9}", number) or not int(number):
            raise ConfigError(f"scale: {pair}: {number!r} is no number of replicas; give a positive integer")
        sizes[pool] = int(number)
    if not sizes:
        raise ConfigError("scale: give at least one POOL=REPLICAS, for example generator=4")
    return sizes
