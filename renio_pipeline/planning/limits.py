"""The batch limits of each engine: those of a run's engines, or those that vLLM would choose on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from renio_pipeline.config import RunConfig
from renio_pipeline.config.schema import Generator
from renio_pipeline.planning.devices import Device
from renio_pipeline.stages.engine_limits import EngineLimits, offline_limits

CHOOSING = ("performance_mode", "enable_chunked_prefill")  # options that change vLLM's choice
GIVEN = {"max_num_seqs": "sequences", "max_num_batched_tokens": "batched_tokens"}  # options that set a limit directly


@dataclass(frozen=True)
class Recorded:
    """The limits of a run's engines, with the configuration that they were built from."""

    config: RunConfig | None = None  # None: there is no run
    limits: Mapping[str, EngineLimits] = field(default_factory=dict)  # by pool; empty: the run recorded none

    def of(self, pool: str, options: Mapping[str, Any]) -> EngineLimits | None:
        """The limits of engines with these options; None if the record does not determine them."""
        found = self.limits.get(pool)
        if found is None or self.config is None:
            return None
        before = sections(self.config)[pool].engine
        if any(before.get(key) != options.get(key) for key in CHOOSING):
            return None
        if any(key in before and before[key] != options.get(key) for key in GIVEN):
            return None  # the record does not show what vLLM would have chosen without the option
        return replace(found, **{name: int(options[key]) for key, name in GIVEN.items() if key in options})


def engine_limits(
    config: RunConfig, device: Device | None, recorded: Recorded, *, prompt: float, teacher_prompt: float
) -> dict[str, EngineLimits]:
    """The limits of the engines of the generators and of each teacher, by pool. A torch teacher has none.

    Args:
        device: None: unknown, and treated as a small device.
        recorded: the limits of the run whose rates the plan uses.
        prompt, teacher_prompt: lengths of the longest prompts, in tokens.
    """

    def of(pool: str, section: Generator, longest: float) -> EngineLimits:
        on_cpu = device is None and not config.pool(pool).gpus
        return recorded.of(pool, section.engine) or offline_limits(
            section.engine,
            context=context(config.max_response_tokens, longest),
            memory=device.memory if device else 0.0,
            device=device.name if device else "",
            cpu_workers=section.tensor_parallel if on_cpu else 0,
        )

    return {
        pool: of(pool, section, prompt if pool == "generator" else teacher_prompt) for pool, section in sections(config).items()
    }


def sections(config: RunConfig) -> dict[str, Generator]:
    """The configuration section of each pool whose replicas have a vLLM engine."""
    teachers = {config.teacher_pools[name]: teacher for name, teacher in config.all_teachers.items() if teacher.type == "vllm"}
    return {"generator": config.generator, **teachers}


def context(max_response_tokens: int, longest_prompt: float) -> int:
    """The longest sequence of an engine, in tokens: a prompt, a whole response, and the token that scoring adds."""
    return int(longest_prompt) + max_response_tokens + 1
