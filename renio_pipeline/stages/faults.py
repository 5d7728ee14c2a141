"""What the deaths of workers say: a slot whose workers always die, or a sample that kills its workers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

MOST_DEATHS = 5  # of one slot, without progress in between
WITHIN_SECONDS = 600.0
LOG_LINES = 20  # in the error


class CrashLoopError(RuntimeError):
    """A worker dies again and again. The text names pool, slot, count, reasons and what it logged last."""


class KillsWorkers(RuntimeError):
    """Two workers died while running only this request, which has no sample to be quarantined. The text names the request."""


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


class PoisonSamples:
    """Finds the samples that kill their workers.

    One death says little: each sample that was in flight may be the cause. A sample that was in flight at two deaths must run
    alone from then on. If two workers die while they run it alone, it is quarantined. So a sample that kills every worker costs
    at most four of them, and no other sample is quarantined with it.
    """

    def __init__(self) -> None:
        self._in_flight_at: Counter[int] = Counter()  # deaths at which a sample was in flight
        self._alone_at: Counter[int] = Counter()  # deaths at which it was the only one

    def died(self, sample_ids: Collection[int], alone: bool) -> list[int]:
        """Record that a worker died with these samples in flight. ``alone``: it had been given this one sample to run alone.

        Returns the samples to quarantine now, which must not be sent out again. They are forgotten here.

        Raises:
            ValueError: ``alone`` with several samples.
        """
        ids = set(sample_ids)
        if alone and len(ids) > 1:
            raise ValueError(f"samples {sorted(ids)} cannot all have run alone on one worker")
        self._in_flight_at.update(ids)
        if alone:
            self._alone_at.update(ids)
        quarantined = sorted(i for i in ids if self._alone_at[i] >= 2)
        for sample_id in quarantined:
            self.finished(sample_id)
        return quarantined

    def must_run_alone(self, sample_id: int) -> bool:
        """Whether the sample must be sent to an idle worker, which gets nothing else until it is done."""
        return self._in_flight_at[sample_id] >= 2

    def finished(self, sample_id: int) -> None:
        """The sample was finished, or is no longer wanted."""
        self._in_flight_at.pop(sample_id, None)
        self._alone_at.pop(sample_id, None)
