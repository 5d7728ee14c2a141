"""A run: evaluate, step, checkpoint, evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from renio_pipeline.checkpoint import THE_START, RunState
from renio_pipeline.checkpointer import Checkpointer
from renio_pipeline.config import RunConfig
from renio_pipeline.evaluate import Evaluation, evaluate
from renio_pipeline.metrics import Sink
from renio_pipeline.pipeline import SkippedStep, Stages, StepResult, train_step
from renio_pipeline.preflight import Prepared
from renio_pipeline.prompts import Cursor, held_out_prompts
from renio_pipeline.results import sample_records, skipped_metrics, step_metrics, verdict_metrics
from renio_pipeline.rundir import Past, RunDirectory
from renio_pipeline.selection import Selection, judge_of
from renio_pipeline.stopping import Stop, leave
from renio_pipeline.types import Version


class Progress(Protocol):
    """What a person watches."""

    def note(self, text: str) -> None: ...

    def step(self, step: int, metrics: dict[str, float]) -> None: ...

    def evaluation(self, step: int, result: Evaluation) -> None: ...


@dataclass(kw_only=True)
class Run:
    config: RunConfig
    prepared: Prepared
    stages: Stages
    directory: RunDirectory
    progress: Progress
    sinks: Sequence[Sink]
    start: RunState = THE_START  # after which step the run goes on
    stop: Stop = field(default_factory=Stop)
    version: Version = field(init=False)  # of the weights that the generators have

    def __post_init__(self) -> None:
        self.version = self.start.version
        trainers, keep, note = self.stages.trainers, self.config.checkpoint.keep, self.progress.note
        self._checkpointer = Checkpointer(self.directory.checkpoints, trainers, keep=keep, note=note)

    async def run(self) -> dict[str, Any]:
        """Every step of the run. Returns what ``result.json`` says."""
        config = self.config
        p, drawn = self.prepared, self.start.samples_drawn
        cursor = Cursor(p.prompt_ids, p.rows, config, drawn, teacher_ids=p.teacher_ids)
        judge = judge_of(self.prepared.task, self.prepared.tokenizer)
        past = self.directory.past()
        try:
            await self.stages.trainers.publish(self.version)  # a generator serves no sample before it has its weights
            if config.evaluate.problems and not self.start.step:
                past.evaluations[0] = await self._evaluate(0)
            for step in range(self.start.step + 1, config.steps + 1):
                try:
                    result = await train_step(self.stages, config, Selection(config, cursor.take, judge), step, self.version)
                except Exception as error:
                    error.add_note(f"in step {step}")
                    raise
                metrics = self._record(result)
                if isinstance(result, StepResult):
                    self.version = result.publication.version
                    past.raw.append(result.weighed.raw)
                    past.verdicts += [result.judged[s.rollout.sample_id].verdict for s in result.scored]
                    past.first = past.first or metrics
                if self._due(step, config.evaluate.every) and config.evaluate.problems:
                    found = past.evaluations[step] = await self._evaluate(step)
                    metrics |= {"eval/accuracy": found.accuracy, "eval/response_tokens": found.response_tokens}
                for sink in self.sinks:
                    sink.write(step, metrics)
                self.progress.step(step, metrics)
                if self.stop.requested or self._due(step, config.checkpoint.every):
                    await self._checkpoint(step, cursor)
                if self.stop.requested and step < config.steps:
                    await self._checkpointer.finish()
                    leave()
            await self._checkpointer.finish()
        except Exception:
            with suppress(Exception):
                await self._checkpointer.finish()  # of an earlier step: all the more worth having
            raise
        finally:
            for sink in self.sinks:
                sink.close()
        if not past.raw:
            self.progress.note(f"filter {config.filter} kept nothing in any step: the weights are what they were")
        outcome = self._outcome(past)
        self.directory.write_result(outcome)
        return outcome

    def _due(self, step: int, every: int) -> bool:
        return step == self.config.steps or bool(every and step % every == 0)

    def _record(self, result: StepResult | SkippedStep) -> dict[str, float]:
        sizes = {"generator": self.stages.generators.size, "teacher": self.stages.teachers.size}
        config, kept = self.config, len(result.scored) if isinstance(result, StepResult) else 0
        if kept < config.batch_size:
            self.progress.note(
                f"step {result.step}: filter {config.filter} kept {kept} of {len(result.judged)} samples"
                + ("" if kept else ": the step is skipped")
            )
        if isinstance(result, SkippedStep):
            return skipped_metrics(result, sizes)
        self.directory.write_samples(result.step, sample_records(result))
        metrics = step_metrics(result, sizes)
        threshold = config.weighting.threshold
        if metrics["mismatch/logprob_abs_mean"] > threshold / 2:
            self.progress.note(
                f"step {result.step}: generator and trainer log-probabilities differ by "
                f"{metrics['mismatch/logprob_abs_mean']:.3g} on average, more than half of weighting.threshold ({threshold}): "
                "their numerics alone could make tokens pivotal; set student_logprobs=trainer"
            )
        return metrics

    async def _evaluate(self, step: int) -> Evaluation:
        p = self.prepared
        prompts = held_out_prompts(p.held_out_ids, p.held_out)
        result = await evaluate(self.stages.generators, prompts, p.task, p.tokenizer, self.config.evaluate.temperature)
        self.directory.write_evaluation(step, result)
        self.progress.evaluation(step, result)
        return result

    async def _checkpoint(self, step: int, cursor: Cursor) -> None:
        state = RunState(
            step=step, samples_drawn=cursor.position, version=self.version,
            running_mean=await self.stages.weighting.running_mean(),
            world_size=self.config.pools.trainer.replicas, zero_stage=self.config.trainer.zero_stage,
        )  # fmt: skip
        await self._checkpointer.save(state)

    def _outcome(self, past: Past) -> dict[str, Any]:
        raw = np.concatenate(past.raw) if past.raw else np.empty(0)
        whole_run = verdict_metrics(raw, raw, past.verdicts)
        return {
            "evaluations": {step: asdict(found) for step, found in past.evaluations.items()},
            "auroc": whole_run.get("weights/auroc"),
            "first_step": past.first,
        }
