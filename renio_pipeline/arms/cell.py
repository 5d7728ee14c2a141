"""One run of one arm, and the student's answers to the held-out problems after it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from renio_pipeline.config import RunConfig
from renio_pipeline.data.prompts import held_out_prompts
from renio_pipeline.grading.grader import Grader, judge_all
from renio_pipeline.loop.run import Progress, Run
from renio_pipeline.metrics.sink import JsonlSink
from renio_pipeline.preflight import Prepared
from renio_pipeline.run_dir.checkpoint_files import RunState, write_durably
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.stages.protocols import Generators, Stages

ANSWERS = "held_out.json"  # in a cell's folder, written last: the cell is complete
Answers = dict[str, bool]  # whether the answer to a held-out problem is correct, by the row's id


async def train(stages: Stages, config: RunConfig, prepared: Prepared, start: RunState, progress: Progress) -> None:
    """One run, in its own directory."""
    directory = RunDirectory(config, start)
    run = Run(
        config=config,
        prepared=prepared,
        stages=stages,
        directory=directory,
        progress=progress,
        sinks=[JsonlSink(directory.metrics)],
        start=start,
    )
    await run.run()


async def answers(generators: Generators, prepared: Prepared, temperature: float) -> Answers:
    """The student's answers to the held-out problems that have a verdict, sampled with the same seeds whatever was trained."""
    prompts = held_out_prompts(prepared.held_out_ids, prepared.held_out)
    async with Grader(prepared.task, prepared.tokenizer) as grader:
        judged = await judge_all(generators.generate(prompts, temperature), grader.judge)
    return {j.rollout.prompt.row.id: j.verdict == "correct" for j in judged if j.verdict is not None}


def write_answers(folder: Path, found: Answers) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / ANSWERS, json.dumps(found, indent=0))


def read_answers(folder: Path) -> Answers | None:
    """None for a cell that is not complete."""
    path = folder / ANSWERS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def paired(one: Sequence[Answers], other: Sequence[Answers]) -> np.ndarray:
    """[P] float64: of each problem that all have answered, the mean over seeds of one arm's correctness minus the other's."""
    shared = sorted(set.intersection(*(set(found) for found in (*one, *other))))
    means = [np.array([np.mean([found[row] for found in arm]) for row in shared]) for arm in (one, other)]
    difference: np.ndarray = means[0] - means[1]
    return difference


def accuracy(found: Mapping[str, bool]) -> float:
    return float(np.mean(list(found.values())))
