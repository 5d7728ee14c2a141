"""What a plan knows, and its sources: a ``--rates`` file takes precedence over a run, and a run over a device's data sheet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.schema import Generator, Opsd
from renio_pipeline.planning.devices import Device, device_of
from renio_pipeline.planning.estimate import Sizes
from renio_pipeline.planning.given import Given, read_given
from renio_pipeline.planning.lengths import Lengths
from renio_pipeline.planning.limits import Recorded, engine_limits
from renio_pipeline.planning.measured import Measured, differences, measured
from renio_pipeline.planning.model_configs import model_config
from renio_pipeline.planning.rates import Rates
from renio_pipeline.planning.sizes import ModelSizes, sizes_of
from renio_pipeline.planning.stage_rates import StageRates
from renio_pipeline.stages.engine_limits import EngineLimits

PROMPT = 256.0  # tokens, if nothing is known


@dataclass(frozen=True, kw_only=True)
class Known:
    """All inputs of a plan."""

    sizes: Sizes
    lengths: Lengths
    longest_prompt: float
    longest_teacher_prompt: float
    limits: dict[str, EngineLimits]  # the engines' limits, by pool
    rates: Rates
    device: Device | None
    sources: dict[str, str]  # what is known -> its source


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The sources that the user named."""

    device: str | None = None
    run: Path | None = None
    rates: Path | None = None
    offline: bool = False
    gpus_per_node: int = 8


def gather(config: RunConfig, sources: Sources) -> Known:
    """Read all inputs of a plan.

    Raises:
        ConfigError: something cannot be read, or is unknown; names the option that would supply it.
    """
    given = read_given(sources.rates) if sources.rates else Given()
    seen = measured(sources.run) if sources.run else None
    device = given.device.device() if given.device else device_of(sources.device) if sources.device else None
    notes: dict[str, str] = {}
    if seen is not None and (others := differences(seen.config, config)):
        notes["measured otherwise"] = f"{sources.run} had another {', '.join(others)}: its rates may not apply"
    lengths = _lengths(config.max_response_tokens, given, seen)
    notes["response lengths"] = f"{lengths.source}: mean {lengths.mean:.0f}, longest {lengths.longest:.0f} tokens"
    prompt, teacher_prompt = _prompts(config, given, seen, lengths, notes)
    student, *teachers = _models(config, offline=sources.offline)
    sizes = Sizes(
        student=student, teachers=tuple(teachers), prompt=prompt, teacher_prompt=teacher_prompt, response=lengths.mean
    )
    longest = float(config.data.max_prompt_tokens or max(2 * prompt, prompt + 64))
    longest_taught = max(longest, 2 * teacher_prompt)
    limits = engine_limits(config, device, seen.limits if seen else Recorded(), prompt=longest, teacher_prompt=longest_taught)
    if config.generates:
        notes["engine limits"] = (
            f"{_limits_from(config.generator, device, seen)}: a generator writes {limits['generator'].sequences} at a time"
        )
    rates = StageRates(config, sizes, device, given, seen, sources.gpus_per_node, limits, notes).all()
    return Known(
        sizes=sizes,
        lengths=lengths,
        longest_prompt=longest,
        longest_teacher_prompt=longest_taught,
        limits=limits,
        rates=rates,
        device=device,
        sources=notes,
    )


def _limits_from(section: Generator, device: Device | None, seen: Measured | None) -> str:
    if seen is not None and seen.limits.of("generator", section.engine) is not None:
        return "measured"
    return f"as vLLM chooses for {device.name}" if device else "as vLLM chooses for a small device"


def _models(config: RunConfig, *, offline: bool) -> list[ModelSizes]:
    """The sizes of the student and of each teacher."""
    student = sizes_of(config.student, model_config(config.student, "student", offline=offline))
    names = {config.teacher_key(name, "model"): config.teacher_model(name) for name in config.all_teachers}
    return [
        student,
        *(
            student if model == config.student else sizes_of(model, model_config(model, key, offline=offline))
            for key, model in names.items()
        ),
    ]


def _lengths(max_response_tokens: int, given: Given, seen: Measured | None) -> Lengths:
    longest = float(max_response_tokens)
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
) -> tuple[float, float]:
    """The mean lengths of the student's and the teacher's prompt, in tokens."""
    assumed = min(PROMPT, float(config.data.max_prompt_tokens or PROMPT))
    prompt = given.prompt_tokens if given.prompt_tokens is not None else seen.prompt if seen else assumed
    if given.teacher_prompt_tokens is not None:
        teacher = given.teacher_prompt_tokens
    elif seen is not None:
        teacher = seen.teacher_prompt
    else:  # a reference solution is about as long as a response
        teacher = prompt + (lengths.mean if isinstance(config.method, Opsd) or config.privileged else 0.0)
    source = "given" if given.prompt_tokens is not None else "measured" if seen else "assumed"
    of_teacher = f", the teacher's {teacher:.0f}" if config.all_teachers else ""
    notes["prompts"] = f"{source}: {prompt:.0f} tokens{of_teacher}"
    return prompt, teacher
