"""When a pool should grow or shrink by one replica. Policy only: who looks, and who starts replicas, is not known here."""

from __future__ import annotations

from renio_pipeline.config.schema import Autoscale

GROW_BELOW = 0.1  # idle share: the pool is saturated
SHRINK_ABOVE = 0.5  # idle share: half of the pool would do


class Scaler:
    """Call ``look`` every ``interval_seconds``.

    Between the two idle shares lies a band in which nothing changes, and a change needs ``patience`` looks in a row that agree.
    Give the size that the pool is meant to have, and do not look while a replica is starting: the load of a pool that is not
    complete says nothing of the complete one.
    """

    def __init__(self, limits: Autoscale) -> None:
        self._limits = limits
        self._size: int | None = None  # at the last look
        self._grow = self._shrink = 0  # looks in a row that spoke for it

    def look(self, size: int, *, idle: float, queue: int) -> int:
        """The size that the pool should have, at most one away from ``size``.

        Args:
            size: replicas now.
            idle: share of the time since the last look in which a replica did nothing, on average, 0 to 1.
            queue: samples that wait for a replica.
        """
        limits = self._limits
        if size != self._size:  # what was seen of another size, whoever changed it, does not count
            self._grow = self._shrink = 0
        self._size = size
        if not limits.min <= size <= limits.max:
            return size + 1 if size < limits.min else size - 1
        self._grow = self._grow + 1 if queue > 0 and idle < GROW_BELOW else 0
        self._shrink = self._shrink + 1 if queue == 0 and _too_large(size, idle) else 0
        if max(self._grow, self._shrink) < limits.patience:
            return size
        wanted = size + 1 if self._grow else size - 1
        self._grow = self._shrink = 0
        return min(max(wanted, limits.min), limits.max)


def _too_large(size: int, idle: float) -> bool:
    """Whether one replica fewer would do, and not at once be too few again.

    The second matters at two replicas only: idle for 52 % of the time, they would leave a single one idle for 4 %, which would
    ask for the second one back, and so on for ever.
    """
    return size > 1 and idle > SHRINK_ABOVE and (1 - idle) * size <= (1 - GROW_BELOW) * (size - 1)
