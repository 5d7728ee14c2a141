"""Which of the student's responses a step trains on: all, or those with the verdict that the user asked for.

Without a filter a response is passed on to a teacher at once and judged concurrently. With a filter it is passed on when its
verdict arrives; a slow verdict delays no other response.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

from renio_pipeline.config import RunConfig
from renio_pipeline.grading.grader import Judge, Judged
from renio_pipeline.types import Prompt, Rollout

MOST_DRAWN = 16  # times batch_size: a student that is almost never wrong must not draw for ever


class Selection:
    """One step's samples: drawn, written, judged, and kept or dropped.

    With ``filter_batch: refill`` more prompts are drawn, as many as are missing, until ``batch_size`` samples are kept or 16
    times as many were drawn; with ``shrink`` the batch is what is kept of one draw. A step without a filter draws once, so that
    its sample ids are consecutive: a quarantined one is not replaced.
    """

    def __init__(
        self, config: RunConfig, draw: Callable[[int], Sequence[Prompt]], judge: Judge, quarantined: Collection[int] = ()
    ) -> None:
        """``quarantined``: ids of samples that a pool gave up on; it grows during the step."""
        self._config, self._draw, self._judge, self._quarantined = config, draw, judge, quarantined
        self.judged: dict[int, Judged] = {}  # every response of the step, by sample id
        self.kept: list[int] = []  # sample ids

    async def responses(self, write: Callable[[Sequence[Prompt]], AsyncIterator[Rollout]]) -> AsyncIterator[Rollout]:
        """Yield each response that is kept, as it ends. ``write`` must yield every prompt's exactly once."""
        size, unfiltered = self._config.batch_size, self._config.filter == "all"
        while True:
            prompts = self._draw(size - len(self.kept))
            async with _Judging(self._judge) as judging:
                async for rollout in judging.unjudged(write(prompts)) if unfiltered else self._kept(judging, write(prompts)):
                    self.kept.append(rollout.sample_id)
                    yield rollout
                judged = await judging.all()
            exactly_once(
                [j.rollout.sample_id for j in judged], [p.sample_id for p in prompts if p.sample_id not in self._quarantined]
            )
            self.judged |= {j.rollout.sample_id: j for j in judged}
            once = unfiltered or self._config.filter_batch == "shrink"
            if once or len(self.kept) == size or len(self.judged) >= MOST_DRAWN * size:
                return

    async def _kept(self, judging: _Judging, rollouts: AsyncIterator[Rollout]) -> AsyncIterator[Rollout]:
        async for judged in judging.judged(rollouts):
            if judged.verdict == self._config.filter or (judged.verdict == "unfinished" and self._config.unfinished):
                yield judged.rollout


class _Judging:
    """The verdicts on one draw's responses. Those that are under way at the end of the context are cancelled."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._verdicts: list[asyncio.Future[Judged]] = []  # in the order in which the responses came

    async def __aenter__(self) -> _Judging:
        return self

    async def __aexit__(self, *error: object) -> None:
        await _cancel(self._verdicts)

    async def unjudged(self, rollouts: AsyncIterator[Rollout]) -> AsyncIterator[Rollout]:
        """Yield each response at once; its verdict comes later."""
        async for rollout in rollouts:
            self._begin(rollout)
            yield rollout

    async def judged(self, rollouts: AsyncIterator[Rollout]) -> AsyncIterator[Judged]:
        """Yield each response with its verdict, in the order of the verdicts."""
        arriving: asyncio.Future[Rollout | None] | None = asyncio.ensure_future(anext(rollouts, None))
        waiting: list[asyncio.Future[Judged]] = []
        try:
            while arriving or waiting:
                under_way: list[asyncio.Future[Any]] = [*waiting, *([arriving] if arriving else [])]
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                if arriving and arriving.done():
                    rollout = arriving.result()
                    if rollout is not None:
                        waiting.append(self._begin(rollout))
                    arriving = asyncio.ensure_future(anext(rollouts, None)) if rollout is not None else None
                ready, waiting = [v for v in waiting if v.done()], [v for v in waiting if not v.done()]
                for verdict in ready:
                    yield verdict.result()
        finally:
            await _cancel([arriving] if arriving else [])

    async def all(self) -> list[Judged]:
        """Every response with its verdict, in the order in which they came, however long each verdict took."""
        return await asyncio.gather(*self._verdicts)

    def _begin(self, rollout: Rollout) -> asyncio.Future[Judged]:
        self._verdicts.append(asyncio.ensure_future(self._judge(rollout)))
        return self._verdicts[-1]


async def _cancel(waiting: Sequence[asyncio.Future[Any]]) -> None:
    for future in waiting:
        future.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def exactly_once(came: Sequence[int], sent: Sequence[int]) -> None:
    """Assert that every sample that was sent out came back exactly once."""
    assert sorted(came) == sorted(sent), f"samples {sorted(sent)} were sent out, {sorted(came)} came back"
