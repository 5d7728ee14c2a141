"""The stages without engines do what the pipeline does: a run's responses, replayed through them, give its numbers again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from renio_pipeline.config import RunConfig, load
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.grading.grader import Grader
from renio_pipeline.in_process import in_process_stages
from renio_pipeline.loop.selection import Selection
from renio_pipeline.loop.step import make_batch, train_step
from renio_pipeline.models import info
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.stages.outcomes import StepResult
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.types import FIRST_VERSION, Busy, Prompt, Rollout, ScoredRollout, TeacherScores, Version
from tests.ray import runs

Records = dict[int, dict[str, Any]]  # by sample id


@dataclass
class Replay:
    """Writes what the pipeline's generators wrote, with the log-probabilities of this process's student."""

    stages: Stages
    recorded: Records
    version: Version = FIRST_VERSION
    size: int = 1

    async def generate(self, prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
        rollouts = [self._rollout(p, np.zeros(len(self.recorded[p.sample_id]["token_ids"]), np.float32)) for p in prompts]
        unscored = [
            ScoredRollout(rollout=r, scores=TeacherScores(sample_id=r.sample_id, logprobs=r.logprobs)) for r in rollouts
        ]
        own = await self.stages.trainers.logprobs(make_batch(0, unscored, np.ones(len(unscored))))
        for p in prompts:
            yield self._rollout(p, own[p.sample_id])

    def _rollout(self, prompt: Prompt, logprobs: np.ndarray) -> Rollout:
        record = self.recorded[prompt.sample_id]
        foreign = record.get("off_policy")
        assert record["version"] == ("off-policy" if foreign else str(self.version))
        assert record["row"] == prompt.row.id
        ids = np.array(record["token_ids"], np.int32)
        return Rollout(
            prompt=prompt,
            token_ids=ids,
            logprobs=logprobs,
            stop_reason=record["stop_reason"],
            version=self.version,
            off_policy=foreign,
        )

    async def busy_seconds(self) -> Busy:
        return {}


@dataclass
class Replayed:
    config: RunConfig
    recorded: list[Records]  # of each step
    results: list[StepResult]
    lm: Any


async def replay(config: RunConfig, prepared: Prepared, recorded: list[Records]) -> Replayed:
    stages = in_process_stages(config, prepared)
    lm = stages.trainers.model.lm  # type: ignore[attr-defined]
    cursor = Cursor(prepared.prompt_ids, prepared.rows, config, teacher_ids=prepared.teacher_ids, stretch=prepared.stretch)
    version, results = FIRST_VERSION, []
    async with Grader(prepared.task, prepared.tokenizer) as grader:
        for step, records in enumerate(recorded, start=1):
            stages.generators = Replay(stages, records, version)
            result = await train_step(stages, config, Selection(config, cursor.take, grader.judge), step, version)
            assert isinstance(result, StepResult)
            results.append(result)
            version = result.publication.version
    return Replayed(config, recorded, results, lm)


@pytest.fixture(scope="module")
def replayed(whole_run: Path) -> Replayed:
    config = load(whole_run / "config.yaml")
    paths = sorted((whole_run / "samples").glob("step_*.jsonl"))
    recorded = [{r["sample_id"]: r for r in runs.lines_of(path)} for path in paths]
    assert len(recorded) == config.steps == runs.STEPS
    return asyncio.run(replay(config, prepare(config), recorded))


@pytest.mark.parametrize(
    ("name", "atol"), [("student_logprobs", 1e-4), ("teacher_logprobs", 1e-4), ("raw_weight", 1e-4), ("weight", 1e-4)]
)
def test_log_probabilities_and_weights_of_every_sample_are_the_pipelines(replayed: Replayed, name: str, atol: float) -> None:
    for records, result in zip(replayed.recorded, replayed.results, strict=True):
        found = {
            "student_logprobs": [s.rollout.logprobs for s in result.scored],
            "teacher_logprobs": [s.scores.logprobs for s in result.scored],
            "raw_weight": result.weighed.raw,
            "weight": result.weighed.weights,
        }[name]
        assert [s.rollout.sample_id for s in result.scored] == sorted(records)
        for s, value in zip(result.scored, found, strict=True):
            np.testing.assert_allclose(value, records[s.rollout.sample_id][name], atol=atol, rtol=1e-4)


def test_verdicts_and_pivotal_tokens_are_the_pipelines(replayed: Replayed) -> None:
    for records, result in zip(replayed.recorded, replayed.results, strict=True):
        for s, pivotal in zip(result.scored, result.weighed.pivotal, strict=True):
            i = s.rollout.sample_id
            assert pivotal.tolist() == records[i]["pivotal"]
            assert result.judged[i].verdict == records[i]["verdict"]


def test_loss_divergence_and_gradient_norm_of_every_step_are_the_pipelines(replayed: Replayed, whole_run: Path) -> None:
    for line, result in zip(runs.lines_of(whole_run / "metrics.jsonl"), replayed.results, strict=True):
        report = result.report
        figures = {"loss": report.loss, "divergence": report.divergence, "grad_norm": report.grad_norm}
        for name, value in (figures | {"pivotal/loss_after": report.loss_after_pivotal}).items():
            assert value == pytest.approx(line[name], rel=1e-4, abs=1e-5), (line["step"], name)
        assert report.lr == pytest.approx(line["lr"], rel=1e-9)
        assert report.tokens == line["tokens/trained"]


def test_the_trained_parameters_are_those_of_the_last_checkpoint(replayed: Replayed, whole_run: Path) -> None:
    """AdamW divides by the size of the gradient: where that is nearly nothing, rounding moves a weight by up to the rate."""
    saved = load_file(whole_run / f"checkpoints/step_{runs.STEPS:06d}/hf/model.safetensors")
    first = load_file(Path(info.resolve(replayed.config.student)) / "model.safetensors")
    own = dict(replayed.lm.named_parameters())
    assert own.keys() == saved.keys()
    gap = moved = torch.zeros(())
    for name, parameter in own.items():
        gap = gap + (parameter.detach() - saved[name]).square().sum()
        moved = moved + (saved[name] - first[name].float()).square().sum()
        torch.testing.assert_close(parameter.detach(), saved[name], atol=replayed.config.trainer.lr, rtol=0, msg=name)
    assert float(moved.sqrt()) > 0.1
    assert float(gap.sqrt() / moved.sqrt()) < 1e-3
