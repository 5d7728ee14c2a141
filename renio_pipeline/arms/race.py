"""The race: every seed's arms one after another, a look after each seed, and an end where an arm is clearly ahead.

What is complete on disk is not done again, so that a race that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from renio_pipeline.arms.arm import Arm, of_cell
from renio_pipeline.arms.cell import Answers, answers, read_answers, train, write_answers
from renio_pipeline.arms.sequential import Look, look
from renio_pipeline.config import RunConfig
from renio_pipeline.loop.run import Progress
from renio_pipeline.preflight import Prepared
from renio_pipeline.run_dir.checkpoint_files import THE_START, RunState
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.types import Version

# Stages for one run of a configuration, whose trainer has the student's first weights; the state is the run's start.
Open = Callable[[RunConfig, RunState], AbstractAsyncContextManager[Stages]]


def from_disk(arms: Sequence[Arm], folder: Path, *, seeds: int) -> list[Look] | None:
    """The looks of a race of which nothing is left to run; None for any other."""
    found: dict[str, list[Answers]] = {arm.name: [] for arm in arms}
    looks: list[Look] = []
    for seed in range(seeds):
        for arm in arms:
            done = read_answers(folder / f"seed-{seed}" / arm.name)
            if done is None:
                return None
            found[arm.name].append(done)
        looks.append(look(found, looks=seeds))
        if looks[-1].clear:
            break
    return looks


async def race(
    open_stages: Open,
    arms: Sequence[Arm],
    prepared: Prepared,
    folder: Path,
    *,
    seeds: int,
    steps: int,
    progress: Progress,
) -> AsyncIterator[Look]:
    """Yield a look after each seed. Ends after ``seeds`` of them, or as soon as an arm is clearly ahead."""
    found: dict[str, list[Answers]] = {arm.name: [] for arm in arms}
    runs = 0
    for seed in range(seeds):
        for arm in arms:
            place = folder / f"seed-{seed}" / arm.name
            done = read_answers(place)
            if done is None:
                runs += 1
                progress.note(f"seed {seed + 1} of {seeds}, arm {arm.name}")
                done = await _cell(open_stages, arm, prepared, place, seed=seed, steps=steps, epoch=runs, progress=progress)
            found[arm.name].append(done)
        seen = look(found, looks=seeds)
        yield seen
        if seen.clear:
            return


async def _cell(
    open_stages: Open, arm: Arm, prepared: Prepared, place: Path, *, seed: int, steps: int, epoch: int, progress: Progress
) -> Answers:
    shutil.rmtree(place, ignore_errors=True)  # of a race that was interrupted: short enough to begin again
    config = of_cell(arm, seed, steps, place)
    start = replace(THE_START, version=Version(epoch, 0))  # no run's weights are mistaken for another's
    async with open_stages(config, start) as stages:
        await train(stages, config, prepared, start, progress)
        found = await answers(stages.generators, prepared, config.evaluate.temperature)
    write_answers(place, found)
    return found
