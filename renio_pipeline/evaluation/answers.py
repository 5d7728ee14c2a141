"""One model's responses to all data sets, streamed through a generator pool and judged as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from renio_pipeline.evaluation.asking import Asked
from renio_pipeline.evaluation.markers import Markers
from renio_pipeline.evaluation.records import Problem, Sample
from renio_pipeline.evaluation.sets import DataSet
from renio_pipeline.grading.grader import Grader, Judged
from renio_pipeline.stages.protocols import Generators
from renio_pipeline.types import Prompt, Rollout

Finished = Callable[[DataSet, list[Problem]], None]


class Answers:
    """Collects the samples of one data set until every problem has all of its samples."""

    def __init__(self, data: DataSet, prompts: Sequence[Prompt], markers: Markers) -> None:
        self.data, self._markers = data, markers
        self._places = {prompt.sample_id: place for place, prompt in enumerate(prompts)}
        self._samples: dict[int, Sample] = {}  # by position in the data set

    def add(self, found: Judged) -> bool:
        """Add a judged response; returns whether the data set is now complete."""
        assert found.verdict is not None, "rows that cannot be graded should have been left out"
        rollout = found.rollout
        self._samples[self._places[rollout.sample_id]] = Sample(
            answer=found.answer,
            verdict=found.verdict,
            tokens=len(rollout.token_ids),
            stop_reason=rollout.stop_reason,
            response=found.text,
            markers=self._markers.count(found.text),
            given_up=found.given_up,
        )
        return len(self._samples) == len(self.data.rows) * self.data.samples

    def problems(self) -> list[Problem]:
        """The problems with all of their samples; a generator pool may have quarantined a sample."""
        n = self.data.samples
        places = [range(i * n, i * n + n) for i in range(len(self.data.rows))]
        return [
            Problem.of(row, [self._samples[i] for i in own])
            for row, own in zip(self.data.rows, places, strict=True)
            if all(i in self._samples for i in own)
        ]


async def answer_all(
    generators: Generators, asked: Asked, markers: Markers, finished: Finished, came: Callable[[], None] = lambda: None
) -> None:
    """Send all prompts at once, so that the longest response of a data set does not delay the next data set.

    Args:
        finished: called with the problems of each data set as soon as its last response is judged.
        came: called for each response.
    """
    parts = [Answers(data, prompts, markers) for data, prompts in zip(asked.sets, asked.prompts, strict=True)]
    answers = {p.sample_id: part for prompts, part in zip(asked.prompts, parts, strict=True) for p in prompts}
    under_way: set[asyncio.Task[None]] = set()
    failures: list[BaseException] = []
    async with AsyncExitStack() as stack:
        graders: dict[str, Grader] = {}  # data sets with the same task share its workers
        for data in asked.sets:
            if (recipe := repr(data.task.recipe)) not in graders:
                graders[recipe] = await stack.enter_async_context(Grader(data.task, asked.tokenizer))

        async def judge(rollout: Rollout) -> None:
            part = answers[rollout.sample_id]
            last = part.add(await graders[repr(part.data.task.recipe)].judge(rollout))
            came()
            if last:
                parts.remove(part)
                finished(part.data, part.problems())

        def ended(task: asyncio.Task[None]) -> None:
            under_way.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                failures.append(error)

        try:
            everything = [p for prompts in asked.prompts for p in prompts]
            async for rollout in generators.generate(everything, asked.config.evaluate.temperature):
                if failures:
                    break
                task = asyncio.create_task(judge(rollout))
                under_way.add(task)
                task.add_done_callback(ended)
            while under_way and not failures:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in under_way:
                task.cancel()
        if failures:
            raise failures[0]
        for part in parts:  # these lack quarantined samples, which killed one generator after another
            finished(part.data, part.problems())
