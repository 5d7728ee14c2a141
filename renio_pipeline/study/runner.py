"""One run of a study, in this process: the pipeline's own steps, and measurements of the student before and after."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from renio_pipeline.config import RunConfig
from renio_pipeline.data.prompts import Cursor, held_out_prompts
from renio_pipeline.grading.grader import Grader, by_student
from renio_pipeline.in_process import in_process_stages
from renio_pipeline.in_process.generators import InProcessGenerators
from renio_pipeline.loop.probing import Probing
from renio_pipeline.loop.selection import Selection
from renio_pipeline.loop.step import collect, scored_batch, train_step
from renio_pipeline.metrics.weight_scores import areas
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.stages.off_policy import OffPolicyGenerators
from renio_pipeline.stages.outcomes import SkippedStep, StepResult
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.study.character import WHOLE_RESPONSE, measure_model, shares, terms_of
from renio_pipeline.study.models import ready
from renio_pipeline.study.plan import Cell
from renio_pipeline.study.recovery import measure_teacher
from renio_pipeline.study.results import Record
from renio_pipeline.types import FIRST_VERSION, Verdict

ASKED = ("student", "task", "task_options", "data", "evaluate")  # the keys that determine which model answers which problems


@dataclass(kw_only=True)
class Runner:
    """Runs cells one after another; what they share is computed once."""

    models: Path  # the folder of the study's own models
    note: Callable[[str], None] = print
    _prepared: dict[str, Prepared] = field(default_factory=dict)
    _before: dict[str, dict[str, float]] = field(default_factory=dict)

    async def run(self, cell: Cell) -> Record:
        config = self.resolved(cell.config)
        prepared = self._prepare(config)
        async with Grader(prepared.task, prepared.tokenizer) as grader:
            if cell.kind == "models":
                return await measure_model(config, prepared, grader)
            if cell.kind == "teachers":
                return await measure_teacher(config, prepared, grader)
            if cell.kind == "weights":
                return await measure_weights(config, prepared, grader, cell.prefixes)
            return await self._train(config, prepared, grader)

    def resolved(self, config: RunConfig) -> RunConfig:
        """The configuration with the folders of the study's own models."""
        model = config.teacher.model
        teacher = config.teacher.model_copy(update={"model": ready(model, self.models, self.note) if model else None})
        return config.model_copy(update={"student": ready(config.student, self.models, self.note), "teacher": teacher})

    def _prepare(self, config: RunConfig) -> Prepared:
        key = _part(config, *ASKED, "teacher", "method", "max_response_tokens", "objective")
        if key not in self._prepared:
            self._prepared[key] = prepare(config)
        return self._prepared[key]

    async def _train(self, config: RunConfig, prepared: Prepared, grader: Grader) -> Record:
        began = time.process_time()
        stages = in_process_stages(config, prepared)
        asked = _part(config, *ASKED, "seed")
        if asked not in self._before:  # every arm starts from the same student
            self._before[asked] = await held_out(stages, config, prepared, grader)
        results = await steps(stages, config, prepared, grader)
        after = await held_out(stages, config, prepared, grader)
        return {
            "before": self._before[asked],
            "after": after,
            **summary(results),
            "core_seconds": round(time.process_time() - began, 2),
        }


def _part(config: RunConfig, *keys: str) -> str:
    return json.dumps(config.model_dump(mode="json", include=set(keys)), sort_keys=True)


async def steps(stages: Stages, config: RunConfig, prepared: Prepared, grader: Grader) -> list[StepResult | SkippedStep]:
    """All steps of a run."""
    cursor = Cursor(prepared.prompt_ids, prepared.rows, config, teacher_ids=prepared.teacher_ids)
    version, results = FIRST_VERSION, []
    if config.filter != "all" and isinstance(stages.generators, InProcessGenerators):
        stages.generators.expect(lambda: copy(cursor).take(2 * config.batch_size))
    probing = Probing(config, stages, grader.judge, context=prepared.context)
    for step in range(1, config.steps + 1):
        selection = Selection(config, cursor.take, grader.judge)
        result = await train_step(stages, config, selection, step, version, probing)
        if isinstance(result, StepResult):
            version = result.publication.version
        results.append(result)
    await probing.cancel()
    return results


async def held_out(stages: Stages, config: RunConfig, prepared: Prepared, grader: Grader) -> dict[str, float]:
    """Sample one whole response to every held-out problem: the share of correct responses and of each kind of error."""
    generators = stages.generators
    generators = generators.student if isinstance(generators, OffPolicyGenerators) else generators
    assert isinstance(generators, InProcessGenerators)
    prompts = held_out_prompts(prepared.held_out_ids, prepared.held_out)
    writing = generators.longer(WHOLE_RESPONSE).generate(prompts, config.evaluate.temperature)
    return shares([await grader.judge(rollout) async for rollout in writing], terms=terms_of(config))


def summary(results: Sequence[StepResult | SkippedStep]) -> dict[str, Any]:
    """The results and cost of training: sums over the run, and one number per step for its curves, without skipped steps."""
    trained = [r for r in results if isinstance(r, StepResult)]
    weighed = [r.weighed.metrics for r in trained if r.weighed is not None]
    written = [j.rollout for r in results for j in by_student(r.judged.values())]
    return {
        "trained_steps": len(trained), "samples": len(written),
        "generated_tokens": sum(len(r.token_ids) for r in written),
        "scored_tokens": sum(
            len(s.rollout.prompt.teacher_ids) + len(s.rollout.token_ids) for r in trained for s in r.scored if s.scores
        ),
        "trained_tokens": sum(r.report.tokens for r in trained),
        "curves": {
            "loss": [_short(r.report.loss) for r in trained],
            "divergence": [_short(r.report.divergence) for r in trained],
            "grad_norm": [_short(r.report.grad_norm) for r in trained],
            "accuracy": [_short(share) for r in trained if (share := _share(r)) is not None],
            "response_tokens": [_short(float(np.mean([len(s.rollout.token_ids) for s in r.scored]))) for r in trained],
            "pivotal": [_short(metrics["pivotal/fraction"]) for metrics in weighed],
            "effective_sample_size": [_short(metrics["weights/effective_sample_size"]) for metrics in weighed],
            **_adaptive(trained),
        },
    }  # fmt: skip


def _adaptive(trained: Sequence[StepResult]) -> dict[str, list[float]]:
    """The moves of the weighting ``adaptive``; nothing of others."""
    shown = [r.weighed.metrics for r in trained if r.weighed is not None]
    moves = ("adaptive/strength", "adaptive/after_pivotal", "adaptive/probes", "adaptive/share")
    return {name: [_short(m[name]) for m in shown] for name in moves if all(name in m for m in shown) and shown}


def _share(result: StepResult) -> float | None:
    """The share of correct responses among all that the student wrote in the step; None where it wrote none."""
    own = by_student(result.judged.values())
    return float(np.mean([j.verdict == "correct" for j in own])) if own else None


def _short(value: float) -> float:
    return float(f"{value:.4g}")


async def measure_weights(config: RunConfig, prepared: Prepared, grader: Grader, prefixes: Sequence[int]) -> Record:
    """Score the untrained student's first responses: nothing is trained."""
    began = time.process_time()
    stages = in_process_stages(config, prepared)
    cursor = Cursor(prepared.prompt_ids, prepared.rows, config, teacher_ids=prepared.teacher_ids)
    found = await collect(stages, config, Selection(config, cursor.take, grader.judge), 1)
    student = [s.rollout.logprobs for s in found.scored]
    teacher = [s.teacher_logprobs for s in found.scored]
    verdicts: list[Verdict | None] = [found.judged[s.rollout.sample_id].verdict for s in found.scored]
    pivotal = config.pivotal
    assert stages.weighting is not None, "a configuration without a teacher has no weights to measure"
    weighed = await stages.weighting.weigh(scored_batch(found, student))
    wrong = np.array([v != "correct" for v in verdicts])
    return {
        "samples": len(verdicts),
        "wrong": float(wrong.mean()),
        "pivotal": weighed.metrics["pivotal/fraction"],
        "raw_weight": {"correct": float(weighed.raw[~wrong].mean()), "wrong": float(weighed.raw[wrong].mean())},
        "auroc": {
            str(prefix or "whole"): areas(
                student, teacher, verdicts, threshold=pivotal.threshold, clip=pivotal.clip, prefix=prefix
            )
            for prefix in (*prefixes, None)
        },
        "core_seconds": round(time.process_time() - began, 2),
    }
