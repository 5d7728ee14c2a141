"""What a plan knows, and where from: a ``--rates`` file counts before a run, and a run before a device's data sheet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.planning import estimate
from renio_pipeline.planning.devices import DEVICES, Device, device_of
from renio_pipeline.planning.estimate import Sizes
from renio_pipeline.planning.given import Given, read_given
from renio_pipeline.planning.lengths import Lengths
from renio_pipeline.planning.measured import Measured, measured
from renio_pipeline.planning.model_configs import model_config
from renio_pipeline.planning.rates import GeneratorRate, Rates, TeacherRate, TrainerRate
from renio_pipeline.planning.sizes import ModelSizes, sizes_of
from renio_pipeline.schema import Opsd

PROMPT = 256.0  # tokens, where nothing is known


@dataclass(frozen=True, kw_only=True)
class Known:
    """Everything that a plan is made from."""

    sizes: Sizes
    lengths: Lengths
    longest_prompt: float
    longest_teacher_prompt: float
    rates: Rates
    device: Device | None
    sources: dict[str, str]  # what is known -> where from


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What the user named."""

    device: str | None = None
    run: Path | None = None
    rates: Path | None = None
    offline: bool = False
    gpus_per_node: int = 8


def gather(config: RunConfig, sources: Sources) -> Known:
    """Read all that a plan needs.

    Raises:
        ConfigError: something cannot be read, or is known from nowhere; names the option that would say it.
    """
    given = read_given(sources.rates) if sources.rates else Given()
    seen = measured(sources.run) if sources.run else None
    device = given.device.device() if given.device else device_of(sources.device) if sources.device else None
    notes: dict[str, str] = {}
    lengths = _lengths(config, given, seen)
    notes["response lengths"] = f"{lengths.source}: mean {lengths.mean:.0f}, longest {lengths.longest:.0f} tokens"
    prompt, teacher_prompt = _prompts(config, given, seen, lengths, notes)
    student, *teachers = _models(config, offline=sources.offline)
    sizes = Sizes(
        student=student, teachers=tuple(teachers), prompt=prompt, teacher_prompt=teacher_prompt, response=lengths.mean
    )  # fmt: skip
    rates = _Rates(config, sizes, device, given, seen, sources, notes).all()
    longest = float(config.data.max_prompt_tokens or max(2 * prompt, prompt + 64))
    return Known(
        sizes=sizes, lengths=lengths, longest_prompt=longest, longest_teacher_prompt=max(longest, 2 * teacher_prompt),
        rates=rates, device=device, sources=notes,
    )  # fmt: skip


def _models(config: RunConfig, *, offline: bool) -> list[ModelSizes]:
    """The student's sizes, and each teacher's."""
    student = sizes_of(config.student, model_config(config.student, "student", offline=offline))
    names = {config.teacher_key(name, "model"): config.teacher_model(name) for name in config.all_teachers}
    return [
        student,
        *(
            student if model == config.student else sizes_of(model, model_config(model, key, offline=offline))
            for key, model in names.items()
        ),
    ]


def _lengths(config: RunConfig, given: Given, seen: Measured | None) -> Lengths:
    longest = float(config.max_response_tokens)
    if given.response_tokens is not None:
        try:
            return Lengths.log_normal(given.response_tokens, longest, "given", given.response_spread)
        except ValueError as error:
            raise ConfigError(f"--rates: response_tokens: {error} (max_response_tokens)") from None
    if seen is not None:
        if seen.lengths.longest <= longest:
            return seen.lengths
        return Lengths(tuple(min(q, longest) for q in seen.lengths.quantiles), f"{seen.lengths.source}, cut")
    return Lengths.log_normal(longest / 2, longest, "assumed, half of max_response_tokens")


def _prompts(
    config: RunConfig, given: Given, seen: Measured | None, lengths: Lengths, notes: dict[str, str]
) -> tuple[float, float]:  # fmt: skip
    """Mean tokens of the student's prompt and of the teacher's."""
    assumed = min(PROMPT, float(config.data.max_prompt_tokens or PROMPT))
    prompt = given.prompt_tokens if given.prompt_tokens is not None else seen.prompt if seen else assumed
    if given.teacher_prompt_tokens is not None:
        teacher = given.teacher_prompt_tokens
    elif seen is not None:
        teacher = seen.teacher_prompt
    else:  # a reference solution is about as long as a response
        teacher = prompt + (lengths.mean if isinstance(config.method, Opsd) or config.privileged else 0.0)
    source = "given" if given.prompt_tokens is not None else "measured" if seen else "assumed"
    notes["prompts"] = f"{source}: {prompt:.0f} tokens, the teacher's {teacher:.0f}"
    return prompt, teacher


@dataclass(frozen=True)
class _Rates:
    config: RunConfig
    sizes: Sizes
    device: Device | None
    given: Given
    seen: Measured | None
    sources: Sources
    notes: dict[str, str]

    def all(self) -> Rates:
        slots = int(self.config.generator.engine.get("max_num_seqs", 256))
        generator, teacher, trainer = self._generator(slots), self._teacher(), self._trainer()
        sync, weigh = self._sync(), self.given.weigh_seconds
        if weigh is None:
            weigh = self.seen.weigh_seconds if self.seen else 0.01
        turns = self.seen.turn_seconds if self.seen else self._turns()
        return Rates(
            generator=generator, teacher=teacher, trainer=trainer, sync_seconds=sync, weigh_seconds=weigh, turn_seconds=turns
        )  # fmt: skip

    def _generator(self, slots: int) -> GeneratorRate:
        if self.given.generator is not None:
            return GeneratorRate(slots, self._from("generator", "given", self.given.generator.tokens_per_second))
        if self.seen is not None:
            found = replace(self.seen.generator, slots=slots)
            if self.device is None:
                return self._from("generator", "measured", found)
            # The run says how fast it was at one number of responses; the device's figures say how that changes.
            shape = estimate.generator_rate(self.config, self.sizes, self.device, slots)
            at, rate = max(found.tokens_per_second.items())
            factor = rate / (at / shape.token_seconds[min(at, slots)])
            scaled = {n: r * factor for n, r in shape.tokens_per_second.items()}
            return GeneratorRate(slots, self._from("generator", "measured, and the device's shape", scaled))
        return self._estimated("generator", lambda d: estimate.generator_rate(self.config, self.sizes, d, slots))

    def _teacher(self) -> TeacherRate:
        first = next(iter(self.config.all_teachers.values()))
        if self.given.teacher is not None:
            rate = TeacherRate(self.given.teacher.tokens_per_second, first.max_batch_tokens, self.given.teacher.batch_seconds)
            return self._from("teacher", "given", rate)
        if self.seen is not None:
            return self._from("teacher", "measured", replace(self.seen.teacher, max_batch_tokens=first.max_batch_tokens))
        return self._estimated("teacher", self._all_teachers)

    def _all_teachers(self, device: Device) -> TeacherRate:
        """Of several teachers, each of which scores as many samples: their mean time for a token."""
        found = [
            estimate.teacher_rate(self.config, self.sizes, device, name, model)
            for name, model in zip(self.config.all_teachers, self.sizes.teachers, strict=True)
        ]
        mean = len(found) / sum(1 / rate.tokens_per_second for rate in found)
        return replace(found[0], tokens_per_second=mean)

    def _trainer(self) -> TrainerRate:
        if self.given.trainer is not None:
            rate = TrainerRate(self.given.trainer.tokens_per_second, self.given.trainer.step_seconds)
            return self._from("trainer", "given", rate)
        if self.seen is not None:
            return self._from("trainer", "measured", self.seen.trainer)
        return self._estimated(
            "trainer", lambda d: estimate.trainer_rate(self.config, self.sizes, d, self.sources.gpus_per_node)
        )  # fmt: skip

    def _sync(self) -> float:
        if self.given.sync_seconds is not None:
            return self._from("sync", "given", self.given.sync_seconds)
        if self.seen is not None:
            return self._from("sync", "measured", self.seen.sync_seconds)
        return self._estimated("sync", lambda d: estimate.sync_seconds(self.config, self.sizes, d))

    def _turns(self) -> float:
        """Colocated: the generator's weights go to host memory and back, and with offload the optimizer's state too."""
        if self.config.placement != "colocated" or self.device is None:
            return 0.0
        return 2 * self.sizes.student.parameters * (2 + (12 if self.config.trainer.offload != "none" else 0)) / self.device.host

    def _from(self, stage: str, source: str, found: Any) -> Any:
        self.notes[stage] = source
        return found

    def _estimated(self, stage: str, of: Any) -> Any:
        if self.device is None:
            raise ConfigError(
                f"how fast the {stage} is, is not known: name a --device ({', '.join(DEVICES)}), a measured run by --from, or "
                f"give `{'sync_seconds' if stage == 'sync' else stage}` in a --rates file"
            )
        return self._from(stage, f"estimated from {self.device.name}'s data sheet", of(self.device))
