"""Which of the student's responses a step trains on: all, or those with the verdict that the user asked for.

Without a filter a response goes on to a teacher at once, and is judged beside. With one it goes on when its verdict has come; a
verdict that takes long holds up no other's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

from renio_pipeline.config import RunConfig
from renio_pipeline.grading.grader import Judge, Judged
from renio_pipeline.types import Prompt, Rollout, Verdict

MOST_DRAWN = 16  # times batch_size: a student that is (almost) never wrong must not draw for ever


class Selection:
    """One step's samples: drawn, written, judged, and kept or dropped.

    With ``filter_batch: refill`` more prompts are drawn, as many as are missing, until ``batch_size`` samples are kept or 16
    times as many were drawn; with ``shrink`` the batch is what is kept of one draw. A step without a filter draws once, so that
    its sample ids are consecutive: a rejected one is not made up for.
    """

    def __init__(
        self, config: RunConfig, draw: Callable[[int], Sequence[Prompt]], judge: Judge, rejected: Collection[int] = ()
    ) -> None:
        """``rejected``: samples that a pool set aside; it grows while the step is under way."""
        self._config, self._draw, self._judge, self._rejected = config, draw, judge, rejected
        self.judged: dict[int, Judged] = {}  # every response of the step, by sample id
        self.kept: list[int] = []  # sample ids

    async def responses(self, write: Callable[[Sequence[Prompt]], AsyncIterator[Rollout]]) -> AsyncIterator[Rollout]:
        """Yield each response that is kept, as it ends. ``write`` must yield every prompt's exactly once."""
        size = self._config.batch_size
        go_on = self._unjudged if self._config.filter == "all" else self._filtered
        while True:
            prompts = self._draw(size - len(self.kept))
            came: list[int] = []
            found: dict[int, Judged] = {}
            async for rollout in go_on(_noted(write(prompts), came), found):
                self.kept.append(rollout.sample_id)
                yield rollout
            exactly_once(came, [p.sample_id for p in prompts if p.sample_id not in self._rejected])
            self.judged |= {i: found[i] for i in came}  # in the order in which they came, however long each verdict took
            once = self._config.filter == "all" or self._config.filter_batch == "shrink"
            if once or len(self.kept) == size or len(self.judged) >= MOST_DRAWN * size:
                return

    async def _unjudged(self, rollouts: AsyncIterator[Rollout], found: dict[int, Judged]) -> AsyncIterator[Rollout]:
        """All of them, at once; the verdicts are there at the end."""
        judging: list[asyncio.Task[Judged]] = []
        try:
            async for rollout in rollouts:
                judging.append(asyncio.ensure_future(self._judge(rollout)))
                yield rollout
            found |= {judged.rollout.sample_id: judged for judged in await asyncio.gather(*judging)}
        finally:
            await _cancel(judging)

    async def _filtered(self, rollouts: AsyncIterator[Rollout], found: dict[int, Judged]) -> AsyncIterator[Rollout]:
        """Those of the right verdict, in the order of the verdicts."""
        arriving: asyncio.Future[Rollout | None] | None = asyncio.ensure_future(anext(rollouts, None))
        judging: list[asyncio.Task[Judged]] = []
        try:
            while arriving or judging:
                under_way: list[asyncio.Future[Any]] = [*judging, *([arriving] if arriving else [])]
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                if arriving and arriving.done():
                    rollout = arriving.result()
                    if rollout is not None:
                        judging.append(asyncio.ensure_future(self._judge(rollout)))
                    arriving = asyncio.ensure_future(anext(rollouts, None)) if rollout is not None else None
                ready, judging = [t for t in judging if t.done()], [t for t in judging if not t.done()]
                for judged in [task.result() for task in ready]:
                    found[judged.rollout.sample_id] = judged
                    if self._keeps(judged.verdict):
                        yield judged.rollout
        finally:
            await _cancel([*judging, *([arriving] if arriving else [])])

    def _keeps(self, verdict: Verdict | None) -> bool:
        return verdict == self._config.filter or (verdict == "unfinished" and self._config.unfinished)


async def _noted(rollouts: AsyncIterator[Rollout], came: list[int]) -> AsyncIterator[Rollout]:
    async for rollout in rollouts:
        came.append(rollout.sample_id)
        yield rollout


async def _cancel(waiting: Sequence[asyncio.Future[Any]]) -> None:
    for future in waiting:
        future.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def exactly_once(came: Sequence[int], sent: Sequence[int]) -> None:
    """Every sample that was sent out must have come back, once."""
    assert sorted(came) == sorted(sent), f"samples {sorted(sent)} were sent out, {sorted(came)} came back"
