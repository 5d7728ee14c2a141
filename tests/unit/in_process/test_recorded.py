"""A run from a recording: its numbers are those of the live run on the same responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.grading.grader import Grader
from renio_pipeline.in_process import check, in_process_stages
from renio_pipeline.loop.selection import Selection
from renio_pipeline.loop.step import train_step
from renio_pipeline.metrics.step_metrics import sample_records, step_metrics
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.recordings.recorder import Recorder, recorder
from renio_pipeline.stages.outcomes import StepResult
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.stages.protocols import Stages, Teachers
from renio_pipeline.stages.recorded_inputs import manifest_of
from renio_pipeline.stages.scoring import Scoring
from renio_pipeline.types import FIRST_VERSION, Prompt, Rollout, ScoredRollout, Version
from tests.unit.conftest import make_config

STEPS, BATCH = 3, 4
TEACHER = {"model": "embedded:teacher", "dtype": "float32", "type": "torch"}
FROM_LIVE = ("loss", "divergence", "grad_norm", "lr", "tokens")


def configured(**changes: Any) -> RunConfig:
    small = {
        "steps": STEPS,
        "batch_size": BATCH,
        "samples_per_prompt": 2,
        "max_response_tokens": 32,
        "temperature": 1.2,
        "student_logprobs": "trainer",
        "data": {"problems": 16},
        "evaluate": {"problems": 4},
        "objective": {"type": "top_k_forward_kl", "k": 8},
        "teacher": TEACHER,
        "generator": {"dtype": "float32"},
        "trainer": {"dtype": "float32", "lr": 1e-3},
    }
    return make_config(**small | changes)


def recorded_in(folder: Path, **changes: Any) -> RunConfig:
    return configured(teacher={"type": "recorded", "path": str(folder)}, **changes)


@dataclass
class Tee:
    """Teachers whose every answer is recorded as it is given."""

    live: Any
    scoring: Scoring

    async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
        scored: list[ScoredRollout] = await self.live.score(rollouts, step)
        responses = [(s, self.scoring._response(s.rollout)) for s in scored]
        parts = [(response, *self.scoring._signals(s)) for s, response in responses]
        self.scoring.recorder.add([replace(r, teacher_logprobs=own, top_k=table) for r, own, table in parts])
        return scored

    def __getattr__(self, name: str) -> Any:
        return getattr(self.live, name)


def scoring_of(stages: Stages, config: RunConfig, prepared: Prepared, to: Recorder) -> Scoring:
    assert stages.teachers is not None
    return Scoring(
        generators=stages.generators,
        teachers=stages.teachers,
        budget=PayloadBudget(2**62, 1, 0),
        config=config,
        recorder=to,
        decode=prepared.tokenizer.decode,
        fetch=lambda table: table,
        done=lambda number: None,
        note=print,
    )


async def trained(stages: Stages, config: RunConfig, prepared: Prepared) -> list[StepResult]:
    cursor = Cursor(prepared.prompt_ids, prepared.rows, config, teacher_ids=prepared.teacher_ids, stretch=prepared.stretch)
    judge, found, version = Grader(prepared.task, prepared.tokenizer).judge, list[StepResult](), FIRST_VERSION
    await stages.trainers.publish(version)
    for step in range(1, config.steps + 1):
        result = await train_step(stages, config, Selection(config, cursor.take, judge), step, version)
        assert isinstance(result, StepResult)
        found.append(result)
        version = Version(0, step)
    return found


def weights_of(stages: Stages) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in stages.trainers.model.lm.named_parameters()}  # type: ignore[attr-defined]


def live_run(folder: Path, config: RunConfig) -> tuple[list[StepResult], dict[str, torch.Tensor]]:
    """A live run, every step of which goes into ``folder``."""
    prepared = prepare(config)
    stages = in_process_stages(config, prepared)
    with recorder(folder, manifest_of(config, prepared.tokenizer, prepared.vocab_size)) as to:
        teachers: Teachers = Tee(stages.teachers, scoring_of(stages, config, prepared, to))  # type: ignore[assignment]
        return asyncio.run(trained(replace(stages, teachers=teachers), config, prepared)), weights_of(stages)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "objective": {"type": "sampled", "importance_clip": None},
            "trainer": {"dtype": "float32", "lr": 1e-3, "packing": False},
        },
        {"method": {"type": "opd", "privileged": True}, "prompts": {"teacher": "{solution};{problem}"}},
    ],
    ids=["top_k", "sampled, not packed", "privileged"],
)
def test_a_run_from_a_recording_has_the_live_runs_numbers(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = tmp_path / "scores"
    live, ended = live_run(folder, configured(**changes))
    config = recorded_in(folder, **changes)
    prepared = prepare(config)
    stages = in_process_stages(config, prepared)
    again = asyncio.run(trained(stages, config, prepared))
    for one, other in zip(live, again, strict=True):
        assert one.weighed is not None
        assert other.weighed is not None
        np.testing.assert_allclose(other.weighed.weights, one.weighed.weights, atol=1e-6)
        for name in FROM_LIVE:
            np.testing.assert_allclose(getattr(other.report, name), getattr(one.report, name), atol=1e-6, err_msg=name)
        assert [s.rollout.token_ids.tolist() for s in other.scored] == [s.rollout.token_ids.tolist() for s in one.scored]
    assert max(abs(w - 1) for step in live for w in step.weighed.weights) > 1e-3, "nothing was weighed"  # type: ignore[union-attr]
    after = weights_of(stages)
    for name, value in ended.items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``renio score`` records of the run's own prompts, by the student as it is at the start."""
    folder, config = tmp_path_factory.mktemp("recorded") / "scores", configured()
    prepared = prepare(config)
    stages = in_process_stages(config, prepared)
    with recorder(folder, manifest_of(config, prepared.tokenizer, prepared.vocab_size)) as to:
        asyncio.run(scoring_of(stages, config, prepared, to).record(drawn(config, prepared)))
    return folder


def drawn(config: RunConfig, prepared: Prepared) -> Sequence[Prompt]:
    cursor = Cursor(prepared.prompt_ids, prepared.rows, config, teacher_ids=prepared.teacher_ids, stretch=prepared.stretch)
    return cursor.take(config.steps * config.batch_size)


@pytest.mark.slow
def test_recorded_responses_are_marked_and_held_out_problems_are_the_students(scores: Path) -> None:
    config = recorded_in(scores)
    prepared = prepare(config)
    stages = in_process_stages(config, prepared)
    results = asyncio.run(trained(stages, config, prepared))
    metrics = step_metrics(results[-1], {"generator": 1, "teacher": 0}, {})
    assert metrics["off_policy/fraction"] == 1
    assert {record["version"] for record in sample_records(results[-1])} == {"off-policy"}
    held_out = replace(drawn(config, prepared)[0], sample_id=-1)

    async def answered() -> list[Rollout]:
        return [r async for r in stages.generators.generate([held_out], 1.0)]

    (own,) = asyncio.run(answered())
    assert own.off_policy is None


@pytest.mark.slow
def test_more_steps_and_another_seed_take_recorded_responses_to_the_same_prompt(scores: Path) -> None:
    config = recorded_in(scores, steps=2 * STEPS)
    with pytest.raises(ConfigError, match=r"teacher\.path: .* has no response to row '.*' \(it has 12, of other rows\)"):
        prepare(config)


@pytest.mark.slow
def test_smaller_k_is_a_part_of_what_was_recorded(scores: Path) -> None:
    config = recorded_in(scores, objective={"type": "top_k_forward_kl", "k": 3})
    prepared = prepare(config)
    stages = in_process_stages(config, prepared)
    (first, *_) = asyncio.run(trained(stages, config, prepared))
    for each in first.scored:
        assert each.scores is not None
        table = each.scores.payload[each.rollout.sample_id]
        assert table.token_ids.shape == (len(each.rollout.token_ids), 4)


def test_some_teachers_recorded_and_some_live_need_the_pipeline() -> None:
    teachers = {"maths": TEACHER, "code": {"type": "recorded", "path": "scores"}}
    with pytest.raises(ConfigError, match="teachers may be recorded all or none"):
        check(make_config(teachers=teachers, teacher={}, trainer={"dtype": "float32"}, objective={"type": "sampled"}))
