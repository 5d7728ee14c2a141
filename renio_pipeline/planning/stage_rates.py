"""The rate of each stage from the first source that has it: the user, a run, a device's data sheet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.planning import estimate
from renio_pipeline.planning.devices import DEVICES, Device
from renio_pipeline.planning.estimate import Sizes
from renio_pipeline.planning.given import Given
from renio_pipeline.planning.measured import Measured
from renio_pipeline.planning.rates import AT_ONCE, GeneratorRate, Rates, TeacherRate, TrainerRate
from renio_pipeline.stages.engine_limits import EngineLimits, batch_tokens


@dataclass(frozen=True)
class StageRates:
    """Finds the rate of each stage, and records its source in ``notes``."""

    config: RunConfig
    sizes: Sizes
    device: Device | None
    given: Given
    seen: Measured | None
    gpus_per_node: int
    limits: dict[str, EngineLimits]  # the engines' limits, by pool
    notes: dict[str, str]

    def all(self) -> Rates:
        generator, teacher, trainer = self._generator(self.limits["generator"].sequences), self._teacher(), self._trainer()
        sync, weigh = self._sync(), self.given.weigh_seconds
        if weigh is None:
            weigh = self.seen.weigh_seconds if self.seen else 0.01 * self.config.distils
        turns = self.seen.turn_seconds if self.seen else self._turns()
        return Rates(
            generator=generator, teacher=teacher, trainer=trainer, sync_seconds=sync, weigh_seconds=weigh, turn_seconds=turns
        )

    def _generator(self, slots: int) -> GeneratorRate:
        if self.config.on_solutions:
            return GeneratorRate(slots, {1: AT_ONCE.tokens_per_second})
        if self.given.generator is not None:
            return GeneratorRate(slots, self._from("generator", "given", self.given.generator.tokens_per_second))
        if self.seen is not None:
            if self.seen.generator is None:
                raise ConfigError("--from: in this run nobody wrote responses; give `generator` in a --rates file")
            found = replace(self.seen.generator, slots=slots)
            if self.device is None:
                return self._from("generator", "measured", found)
            # The run has the rate at one number of responses; the device's data sheet shows how the rate depends on it.
            shape = estimate.generator_rate(self.config.generator, self.sizes, self.device, slots)
            at, rate = max(found.tokens_per_second.items())
            factor = rate / (at / shape.token_seconds[min(at, slots)])
            scaled = {n: r * factor for n, r in shape.tokens_per_second.items()}
            return GeneratorRate(slots, self._from("generator", "measured, and the device's shape", scaled))
        return self._estimated("generator", lambda d: estimate.generator_rate(self.config.generator, self.sizes, d, slots))

    def _teacher(self) -> TeacherRate:
        if not self.config.all_teachers:
            return AT_ONCE
        batch = self._batch_tokens(next(iter(self.config.all_teachers)))
        if self.given.teacher is not None:
            rate = TeacherRate(self.given.teacher.tokens_per_second, batch, self.given.teacher.batch_seconds)
            return self._from("teacher", "given", rate)
        if self.seen is not None:
            if self.seen.teacher is None:
                raise ConfigError("--from: this run has no teacher whose speed it could tell; give `teacher` in a --rates file")
            return self._from("teacher", "measured", replace(self.seen.teacher, max_batch_tokens=batch))
        if all(teacher.type == "http" for teacher in self.config.all_teachers.values()):
            raise ConfigError(
                "the speed of a teacher that is served elsewhere is not known here: give a measured run with --from, or "
                "`teacher` in a --rates file"
            )
        return self._estimated("teacher", self._all_teachers)

    def _batch_tokens(self, name: str) -> int:
        return batch_tokens(self.config.all_teachers[name], self.limits.get(self.config.teacher_pools[name]))

    def _all_teachers(self, device: Device) -> TeacherRate:
        """The rate of several teachers: their mean time per token where they share the samples, the sum where each has all."""
        found = [
            estimate.teacher_rate(self.config.all_teachers[name], self.sizes, device, model, self._batch_tokens(name))
            for name, model in zip(self.config.all_teachers, self.sizes.teachers, strict=True)
            if self.config.all_teachers[name].type != "http"
        ]
        seconds = sum(1 / rate.tokens_per_second for rate in found)
        share = self.config.teachers_of_a_sample / len(self.config.all_teachers)  # of the samples, that each teacher scores
        return replace(found[0], tokens_per_second=1 / (seconds * share))

    def _trainer(self) -> TrainerRate:
        if self.given.trainer is not None:
            rate = TrainerRate(self.given.trainer.tokens_per_second, self.given.trainer.step_seconds)
            return self._from("trainer", "given", rate)
        if self.seen is not None:
            return self._from("trainer", "measured", self.seen.trainer)
        return self._estimated("trainer", lambda d: estimate.trainer_rate(self.config, self.sizes, d, self.gpus_per_node))

    def _sync(self) -> float:
        if self.config.on_solutions:
            return 0.0  # only before an evaluation
        if self.given.sync_seconds is not None:
            return self._from("sync", "given", self.given.sync_seconds)
        if self.seen is not None:
            return self._from("sync", "measured", self.seen.sync_seconds)
        return self._estimated("sync", lambda d: estimate.sync_seconds(self.config, self.sizes, d))

    def _turns(self) -> float:
        """Colocated: the generator's weights go to host memory and back; with offload, so does the optimizer's state."""
        if self.config.placement != "colocated" or self.device is None:
            return 0.0
        return 2 * self.sizes.student.parameters * (2 + (12 if self.config.trainer.offload != "none" else 0)) / self.device.host

    def _from(self, stage: str, source: str, found: Any) -> Any:
        self.notes[stage] = source
        return found

    def _estimated(self, stage: str, of: Any) -> Any:
        if self.device is None:
            raise ConfigError(
                f"the speed of the {stage} is not known: give a --device ({', '.join(DEVICES)}), a measured run with --from, "
                f"or `{'sync_seconds' if stage == 'sync' else stage}` in a --rates file"
            )
        return self._from(stage, f"estimated from {self.device.name}'s data sheet", of(self.device))
