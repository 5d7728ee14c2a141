"""A teacher with another tokenizer as a stage: it scores the student's text in tokens of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from renio_pipeline.alignment.retokeniser import CannotScore, Retokenised, Retokeniser
from renio_pipeline.stages.protocols import Teachers
from renio_pipeline.types import Busy, Continuation, ContinuationRequest, Rollout, ScoredRollout

Quarantine = Callable[[int, str, str, str], None]  # see ``renio_pipeline.run_dir.quarantine.QuarantineLog.add``


class OtherTokenizerTeachers:
    """Around a teacher's pool: what goes in is in the teacher's tokens, what comes out is laid on the student's."""

    def __init__(self, pool: Teachers, retokeniser: Retokeniser, name: str, quarantine: Quarantine) -> None:
        """
        Args:
            name: of the pool, for the log.
            quarantine: called for each sample that the teacher cannot score, which is then dropped.
        """
        self._pool, self._retokeniser, self._name, self._quarantine = pool, retokeniser, name, quarantine

    @property
    def size(self) -> int:
        return self._pool.size

    def dispatch(self) -> None:
        self._pool.dispatch()

    async def busy_seconds(self) -> Busy:
        return await self._pool.busy_seconds()

    async def write(self, requests: Sequence[ContinuationRequest]) -> list[list[Continuation]]:
        """Raises RuntimeError: what could be continued is in the student's tokens."""
        raise RuntimeError(f"pool {self._name} reads texts in tokens of its own, and continues none of the student's")

    async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
        """Score rollouts as they arrive. Returns them in the order of sample ids, without quarantined samples."""
        asked: dict[int, tuple[Rollout, Retokenised]] = {}

        async def retokenised() -> AsyncIterator[Rollout]:
            async for rollout in rollouts:
                try:
                    read = self._retokeniser.read(rollout)
                except CannotScore as error:
                    self._quarantine(rollout.sample_id, str(error), self._name, rollout.prompt.row.id)
                    continue
                asked[rollout.sample_id] = (rollout, read)
                yield read.rollout

        scored = await self._pool.score(retokenised(), step)
        return [self._retokeniser.laid(*asked[s.rollout.sample_id], s) for s in scored]
