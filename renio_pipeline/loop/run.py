"""A run: evaluate, step, checkpoint, evaluate; a rollback to the newest checkpoint when a trainer rank is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from renio_pipeline.config import RunConfig
from renio_pipeline.data.prompts import held_out_prompts
from renio_pipeline.grading.grader import Grader
from renio_pipeline.loop.held_out import evaluate
from renio_pipeline.loop.pause import Pause
from renio_pipeline.loop.probing import Probing
from renio_pipeline.loop.restart_epoch import RestartEpoch, in_step
from renio_pipeline.loop.shutdown import Stop, end
from renio_pipeline.loop.step import learn
from renio_pipeline.loop.stranded import Stranded, unless_stranded
from renio_pipeline.loop.timing import Utilisation
from renio_pipeline.metrics.registry import of_source
from renio_pipeline.metrics.sink import Sink
from renio_pipeline.metrics.step_metrics import sample_records, skipped_metrics, step_metrics, verdict_metrics
from renio_pipeline.preflight import Prepared
from renio_pipeline.run_dir.archive import Archive
from renio_pipeline.run_dir.batches import read_batches
from renio_pipeline.run_dir.checkpoint_files import THE_START, ResumePoint, RunState
from renio_pipeline.run_dir.checkpointing import Checkpointer
from renio_pipeline.run_dir.directory import Past, RunDirectory
from renio_pipeline.run_dir.resume import next_point
from renio_pipeline.stages.outcomes import SkippedStep, StepResult
from renio_pipeline.stages.protocols import Stages, TrainerLost
from renio_pipeline.types import Evaluation, Version

T = TypeVar("T")


class Progress(Protocol):
    """What the user sees of a run while it goes on."""

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
    start: RunState = THE_START  # the state that the run starts from, or resumes
    stop: Stop = field(default_factory=Stop)
    pause: Pause = field(init=False)
    version: Version = field(init=False)  # of the weights that the generators have
    step: int = field(init=False)  # the last step that was completed
    metrics: dict[str, float] = field(default_factory=dict, init=False)  # of that step
    teachers_idle: dict[str, float] = field(default_factory=dict, init=False)  # of that step, see StepResult
    replayed: dict[str, int] = field(default_factory=lambda: {"steps": 0, "samples": 0}, init=False)

    def __post_init__(self) -> None:
        self.version, self.step = self.start.version, self.start.step
        self.pause = Pause(self.stages.pools.values(), self.stop)
        trainers, keep = self.stages.trainers, self.config.checkpoint.keep
        folder, fence = self.directory.checkpoints, self.directory.fence
        self.checkpointer = Checkpointer(folder, trainers, keep=keep, note=self.progress.note, fence=fence)
        self._archive = Archive(self.directory.path, self.config.samples, note=self.progress.note, fence=fence)
        self._past = Past()
        self._grader = Grader(self.prepared.task, self.prepared.tokenizer)
        self._epoch, self._probing = self._new_epoch(), self._new_probing()
        self._quarantined_before = 0  # in earlier restart epochs

    async def run(self) -> dict[str, Any]:
        """Run every step. Returns the contents of ``result.json``."""
        self._past = self.directory.past()
        restart: ResumePoint | None = None
        try:
            while True:
                try:
                    if restart is not None:
                        await self._restart(restart)
                        restart = None
                    await self._steps()
                    break
                except TrainerLost as error:
                    restart = await self._roll_back(error)
            await self._on_run_end(None)
        except Exception as error:
            with suppress(Exception):
                await self.checkpointer.finish()  # an earlier step's checkpoint is needed all the more
            await self._on_run_end(error)
            raise
        except SystemExit:
            if self.stop.exit_code == 0:  # not after SIGTERM, whose grace period is short
                await self._on_run_end(None)
            raise
        finally:
            await self._grader.close()
            for sink in self.sinks:
                sink.close()
        if not self._past.first:
            self.progress.note(f"filter {self.config.filter} kept nothing in any step: the weights are unchanged")
        outcome = self._outcome(self._past)
        self.directory.write_result(outcome)
        return outcome

    async def _on_run_end(self, error: Exception | None) -> None:
        for sink in self.sinks:
            await sink.on_run_end(error)

    async def _steps(self) -> None:
        """Train from the step after ``self.step`` to the last."""
        config, epoch, probing = self.config, self._epoch, self._probing
        try:
            publishing = self.stages.trainers.publish(self.version)
            await self._unless_stranded(publishing)  # a generator serves no sample before it has its weights
            if config.evaluate.problems and not self.step and 0 not in self._past.evaluations:
                self._past.evaluations[0] = await self._unless_stranded(self._evaluate(0))
            since = await Utilisation.now(self.stages)
            epoch.learned(self.step)
            for step in range(self.step + 1, config.steps + 1):
                with in_step(step):
                    found = await self._unless_stranded(epoch.take(step))
                    async with self.pause.running():
                        result = await learn(self.stages, config, found, self.version, since, probing)
                        if isinstance(result, StepResult):
                            self.version, since = result.publication.version, Utilisation(result.ended, result.busy)
                        else:
                            since = await Utilisation.now(self.stages)
                        epoch.learned(step)
                        await self._after(step, result)
                if self.stop.requested and step < config.steps:
                    await self.checkpointer.finish()
                    end(self.stop.exit_code)
            await self.checkpointer.finish()
            await self._archive.finish()
            self._tidy()
            await self._archive.finish()
        except Stranded as why:
            await self._stop_stranded(why)
        finally:
            await probing.cancel()
            await epoch.cancel()

    async def _unless_stranded(self, waiting: Coroutine[Any, Any, T]) -> T:
        return await unless_stranded(waiting, self.stages.pools, self.stop, self.pause.end)

    async def _stop_stranded(self, why: Stranded) -> None:
        """Stop without the next step, which has not begun to train."""
        self.progress.note(f"{why}: stopping without step {self.step + 1}")
        # The turn of colocated ranks waits for every generator: their run ends at the newest checkpoint that it has.
        if self.step > self.start.step and self.config.placement != "colocated":
            await self._probing.give_up()
            await self._checkpoint(self.step)
        await self.checkpointer.finish()
        end(self.stop.exit_code)

    def _new_epoch(self) -> RestartEpoch:
        return RestartEpoch(self.config, self.prepared, self.stages, self.start, self._grader.judge)

    def _new_probing(self) -> Probing:
        return Probing(
            self.config,
            self.stages,
            self._grader.judge,
            context=self.prepared.context,
            note=self.progress.note,
            working=self.pause.working,
        )

    async def _after(self, step: int, result: StepResult | SkippedStep) -> None:
        """Record a step; evaluate and write a checkpoint where they are due."""
        past, config = self._past, self.config
        metrics = self._record(result)
        if isinstance(result, StepResult):
            past.first = past.first or metrics
        if self._due(step, config.evaluate.every) and config.evaluate.problems:
            found = past.evaluations[step] = await self._evaluate(step)
            metrics |= {"eval/accuracy": found.accuracy, "eval/response_tokens": found.response_tokens}
            metrics |= {of_source(source, "eval_accuracy"): share for source, share in found.sources.items()}
        for sink in self.sinks:
            sink.observe(result)
            sink.write(step, metrics)
            sink.count(self.totals())
        self.step, self.metrics = step, metrics
        self.progress.step(step, metrics)
        if self.stop.requested or self.checkpointer.asked or self._due(step, config.checkpoint.every):
            await self._checkpoint(step)
        self._tidy()

    def _tidy(self) -> None:
        self._archive.tidy(self.step, max(self.start.step, self.checkpointer.covered))

    async def _roll_back(self, error: TrainerLost) -> ResumePoint:
        """Cut the run's directory back to its newest complete checkpoint, after which the next restart epoch resumes."""
        await self.checkpointer.give_up(str(error))
        await self._archive.finish()
        point = next_point(self.directory.path)
        state = point.state
        done = self.step - state.step
        self.replayed["steps"] += done
        self.replayed["samples"] += sum(self.directory.samples_of(s) for s in range(state.step + 1, self.step + 1))
        self.progress.note(
            f"{error}; all ranks restart after step {state.step}, in restart epoch {state.version.incarnation}: "
            f"{done} steps will be trained again"
        )
        self.start, self.step, self.version = state, state.step, state.version
        self._archive.back_to(state.step)
        self.directory.begin_epoch(state)
        self._past = self.directory.past()
        self._epoch, self._probing = self._new_epoch(), self._new_probing()
        return point

    async def _restart(self, point: ResumePoint) -> None:
        """Bring every stage to ``point``. Raises TrainerLost."""
        self.stages.payload.reset()
        pools = self.stages.pools.values()
        await asyncio.gather(*(pool.cancel_all() for pool in pools))
        if self.stages.weighting is not None:
            await self.stages.weighting.restore(point.state.weighting)
        self._quarantined_before += len(self.stages.quarantined)
        self.stages.quarantined.clear()  # quarantined samples are drawn again, and may succeed this time
        await self.stop.unless_requested(self.stages.trainers.begin(point))  # which may wait for a node

    async def ask_checkpoint(self) -> tuple[int, Path | None]:
        """Write a checkpoint after the current step, or now while paused. Returns its step, and its folder unless it failed."""
        asked = self.checkpointer.ask()
        if self.pause.complete:
            await self._checkpoint(self.step)
        return await asked

    def totals(self) -> dict[str, int]:
        """See ``renio_pipeline.metrics.registry.TOTALS``."""
        replayed = {f"replayed/{unit}": count for unit, count in self.replayed.items()}
        return {**replayed, "samples/rejected": self._quarantined_before + len(self.stages.quarantined)}

    def fixed_pools(self) -> dict[str, dict[str, int]]:
        """The status of the pools whose size is fixed."""
        trainers = self.stages.trainers
        ranks = self.config.pools.trainer.replicas
        found = {"trainer": {"target": ranks, "serving": trainers.size, "restarts": trainers.restarts}}
        return found if self.stages.weighting is None else found | {"weighting": self.stages.weighting.status()}

    def _due(self, step: int, every: int) -> bool:
        return step == self.config.steps or bool(every and step % every == 0)

    def _record(self, result: StepResult | SkippedStep) -> dict[str, float]:
        pools = {name: pool.status() for name, pool in self.stages.pools.items()}
        sizes = {"generator": self.stages.generators.size} if self.config.generates else {}
        if self.stages.teachers is not None:
            sizes["teacher"] = self.stages.teachers.size
        config, kept = self.config, len(result.scored) if isinstance(result, StepResult) else 0
        if kept < config.batch_size:
            self._note_small_batch(result.step, kept, len(result.judged))
        if isinstance(result, SkippedStep):
            return skipped_metrics(result, sizes, pools)
        self.directory.write_samples(result.step, sample_records(result))
        metrics = step_metrics(result, sizes, pools)
        self.teachers_idle = result.teachers_idle
        threshold = config.pivotal.threshold
        if config.distils and metrics.get("mismatch/logprob_abs_mean", 0.0) > threshold / 2:
            self.progress.note(
                f"step {result.step}: generator and trainer log-probabilities differ by "
                f"{metrics['mismatch/logprob_abs_mean']:.3g} on average, more than half the pivotal threshold ({threshold}): "
                "their numerics alone could make tokens pivotal; set student_logprobs=trainer"
            )
        return metrics

    def _note_small_batch(self, step: int, kept: int, drawn: int) -> None:
        if self.config.filter != "all":
            text = f"filter {self.config.filter} kept {kept} of {drawn} samples"
        else:
            missing = self.config.batch_size - kept
            text = f"training on {kept} of {kept + missing} samples; {missing} were quarantined (samples/rejected.jsonl)"
        self.progress.note(f"step {step}: {text}{'' if kept else ': the step is skipped'}")

    async def _evaluate(self, step: int) -> Evaluation:
        p = self.prepared
        if not self.config.writes:  # steps publish nothing: see ``learn``
            await self.stages.trainers.publish(self.version)
        prompts = held_out_prompts(p.held_out_ids, p.held_out)
        result = await evaluate(self.stages.generators, prompts, self._grader.judge, self.config.evaluate.temperature)
        self.directory.write_evaluation(step, result)
        self.progress.evaluation(step, result)
        return result

    async def _checkpoint(self, step: int) -> None:
        await self._probing.take_in()
        state = RunState(
            step=step,
            samples_drawn=self._epoch.samples_drawn(step),
            version=self.version,
            weighting=None if self.stages.weighting is None else await self.stages.weighting.state(),
            world_size=self.config.pools.trainer.replicas,
            zero_stage=self.config.trainer.zero_stage,
        )
        async with self.stages.turns.training():  # offloaded state is part of the checkpoint
            await self.checkpointer.save(state)

    def _outcome(self, past: Past) -> dict[str, Any]:
        batches = [batch for batch in read_batches(self.directory.path).values() if batch.weighed]
        raw = np.concatenate([np.empty(0, np.float32), *(batch.raw for batch in batches)])
        whole_run = verdict_metrics(raw, raw, [verdict for batch in batches for verdict in batch.verdict])
        return {
            "evaluations": {step: found.record() for step, found in past.evaluations.items()},
            "auroc": whole_run.get("weights/auroc"),
            "first_step": past.first,
        }
