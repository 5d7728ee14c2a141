"""What the deaths of workers say: of a worker that cannot live, and of a sample that nobody survives."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

MOST_DEATHS = 5  # of one slot, without progress in between
WITHIN_SECONDS = 600.0
LOG_LINES = 20  # in the error


class CrashLoopError(RuntimeError):
    """A worker dies again and again. The text names pool, slot, count, reasons and what it logged last."""


class Slots:
    """Deaths of each place in a pool, whoever holds it: a replacement has its predecessor's slot."""

    def __init__(self) -> None:
        self._deaths: defaultdict[tuple[str, int], list[tuple[float, str]]] = defaultdict(list)  # time in seconds, reason

    def died(self, pool: str, slot: int, now: float, reason: str, log_tail: str) -> None:
        """Record a death at ``now``, in seconds of any clock that never goes back. ``log_tail`` is the end of its log.

        Raises:
            CrashLoopError: the slot's fifth death within 600 s, without progress in between.
        """
        earlier = [(at, why) for at, why in self._deaths[pool, slot] if now - at <= WITHIN_SECONDS]
        deaths = self._deaths[pool, slot] = [*earlier, (now, reason)]
        if len(deaths) >= MOST_DEATHS:
            raise CrashLoopError(_describe(pool, slot, deaths, log_tail))

    def progress(self, pool: str, slot: int) -> None:
        """The slot's worker did something useful: what it dies of next is not what the earlier ones died of."""
        self._deaths.pop((pool, slot), None)


def _describe(pool: str, slot: int, deaths: Sequence[tuple[float, str]], log_tail: str) -> str:
    reasons = Counter(why for _, why in deaths)
    seconds = deaths[-1][0] - deaths[0][0]
    lines = [
        f"{pool}[{slot}] died {len(deaths)} times within {seconds:.0f} s without progress in between: it is not replaced again",
        *(f"  {count} times: {why}" for why, count in reasons.items()),
    ]
    log = log_tail.splitlines()[-LOG_LINES:]
    return "\n".join([*lines, *(["its log ends with:"] if log else []), *(f"  | {line}" for line in log)])


class Suspects:
    """Which sample kills its workers.

    A death accuses all that were in flight, most of them wrongly, so it rejects nothing. A sample that was there at two deaths
    is a suspect, and must be sent out ``alone`` from then on; two deaths in which nothing else was in flight reject it. So a
    sample that kills whatever takes it costs four workers at most, and none that it was in flight with is rejected.
    """

    def __init__(self) -> None:
        self._present: Counter[int] = Counter()  # deaths at which a sample was in flight
        self._guilty: Counter[int] = Counter()  # those among them at which it was the only one

    def died(self, sample_ids: Collection[int], alone: bool) -> list[int]:
        """Record a worker's death with these samples in flight. ``alone``: it was given this one, and nothing beside it.

        Returns the samples to reject now: those, and only those, must not be sent again. They are forgotten here.

        Raises:
            ValueError: several samples were ``alone``.
        """
        ids = set(sample_ids)
        if alone and len(ids) > 1:
            raise ValueError(f"samples {sorted(ids)} cannot all have been alone on one worker")
        self._present.update(ids)
        if alone:
            self._guilty.update(ids)
        rejected = sorted(i for i in ids if self._guilty[i] >= 2)
        for sample_id in rejected:
            self.finished(sample_id)
        return rejected

    def alone(self, sample_id: int) -> bool:
        """Whether the sample must be sent to a worker that has nothing else, and gets nothing else meanwhile."""
        return self._present[sample_id] >= 2

    def finished(self, sample_id: int) -> None:
        """The sample came back, or is no longer wanted."""
        self._present.pop(sample_id, None)
        self._guilty.pop(sample_id, None)
