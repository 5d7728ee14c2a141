"""How much each engine of a run does at a time: as a run's engines were built, or as vLLM would build them on the device."""

from __future__ import annotations

from collections.abc import Mapping

from renio_pipeline.config import RunConfig
from renio_pipeline.engine_limits import EngineLimits, offline_limits
from renio_pipeline.planning.devices import Device
from renio_pipeline.schema import Generator


def engine_limits(
    config: RunConfig, device: Device | None, recorded: Mapping[str, EngineLimits], *, prompt: float, teacher_prompt: float
) -> dict[str, EngineLimits]:
    """The limits of the generators' engines and of each teacher's, by the name of the pool; a torch teacher has none.

    Args:
        device: None: not known, and treated as a small one.
        recorded: of the run whose rates the plan takes, by pool; options that the user sets count before them.
        prompt, teacher_prompt: tokens of the longest ones.
    """

    def of(pool: str, section: Generator, longest: float) -> EngineLimits:
        fixed = {"max_num_seqs", "max_num_batched_tokens", "performance_mode"} & section.engine.keys()
        if pool in recorded and not fixed:
            return recorded[pool]
        on_cpu = device is None and not config.pool(pool).gpus
        return offline_limits(
            section.engine, context=context(config, longest), memory=device.memory if device else 0.0,
            device=device.name if device else "", cpu_workers=section.tensor_parallel if on_cpu else 0,
        )  # fmt: skip

    found = {"generator": of("generator", config.generator, prompt)}
    for name, pool in config.teacher_pools.items():
        if config.all_teachers[name].type == "vllm":
            found[pool] = of(pool, config.all_teachers[name], teacher_prompt)
    return found


def context(config: RunConfig, longest_prompt: float) -> int:
    """Tokens of the longest sequence that an engine may see: a prompt, a whole response, and the token that scoring adds."""
    return int(longest_prompt) + config.max_response_tokens + 1
