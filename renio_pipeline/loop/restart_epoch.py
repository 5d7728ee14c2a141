"""What one restart epoch of a run owns: its position in the prompts, and the steps that are being collected.

A **restart epoch** is the part of a run between two (re)starts of its trainer ranks: 0 from the start, one more each time that
the run resumes or a lost rank makes all ranks restart from a checkpoint. Weight versions carry its number, so that a version is
never mistaken for one of an earlier epoch; files and metrics call it ``incarnation``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from renio_pipeline.config import RunConfig
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.grading.grader import Judge
from renio_pipeline.loop.lookahead import Lookahead
from renio_pipeline.loop.selection import Selection
from renio_pipeline.loop.step import collect
from renio_pipeline.preflight import Prepared
from renio_pipeline.run_dir.checkpoint_files import RunState
from renio_pipeline.stages.outcomes import Collected
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.types import Prompt


class RestartEpoch:
    """Usage: ``learned(start.step)``; ``await take(step)`` and ``learned(step)`` for each step; ``await cancel()`` last."""

    def __init__(self, config: RunConfig, prepared: Prepared, stages: Stages, start: RunState, judge: Judge) -> None:
        """``start``: the state that the epoch begins with."""
        self._config, self._stages, self._start, self._judge = config, stages, start, judge
        p = prepared
        self._cursor = Cursor(p.prompt_ids, p.rows, config, start.samples_drawn, teacher_ids=p.teacher_ids, stretch=p.stretch)
        self._drawn: dict[int, int] = {}  # step -> the cursor's position after its last draw
        self._one_draws = asyncio.Lock()
        self._lookahead = Lookahead(self._collect, last=config.steps, bound=config.max_staleness)

    def learned(self, step: int) -> None:
        """The trainers have done ``step``."""
        self._drawn = {s: position for s, position in self._drawn.items() if s >= step}  # only a later checkpoint may ask
        self._lookahead.learned(step)

    async def take(self, step: int) -> Collected:
        """A step's samples, written and scored."""
        return await self._stages.trainers.while_healthy(self._lookahead.take(step))

    async def cancel(self) -> None:
        """Drop every step that is being collected."""
        await self._lookahead.cancel()

    def samples_drawn(self, step: int) -> int:
        """How many samples the run has drawn up to the last step that was learned, or a later one, from its start on."""
        return self._drawn.get(step, self._start.samples_drawn)

    async def _collect(self, step: int) -> Collected:
        def draw(count: int) -> list[Prompt]:
            prompts = self._cursor.take(count)
            self._drawn[step] = self._cursor.position
            return prompts

        selection = Selection(self._config, draw, self._judge, self._stages.quarantined)
        with in_step(step):
            if self._config.filter == "all":
                return await collect(self._stages, self._config, selection, step)
            async with self._one_draws:  # a filter draws repeatedly, and a step's draws must all precede the next step's
                return await collect(self._stages, self._config, selection, step)


@contextmanager
def in_step(step: int) -> Iterator[None]:
    """An error that is raised within says in which step."""
    try:
        yield
    except Exception as error:
        note = f"in step {step}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise
