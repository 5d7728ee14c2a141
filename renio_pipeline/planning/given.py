"""Rates given by the user: a ``--rates`` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError
from yaml import YAMLError

from renio_pipeline.config import ConfigError
from renio_pipeline.config.schema import Section
from renio_pipeline.planning.devices import GIB, Device


class GivenDevice(Section):
    name: str = "device"
    memory_gib: PositiveFloat
    bf16_tflops: PositiveFloat = Field(description="dense tensor-core rate")
    fp32_tflops: PositiveFloat
    bandwidth_gb: PositiveFloat = Field(description="memory bandwidth, 10^9 bytes per second")
    link_gb: PositiveFloat = Field(32.0, description="bandwidth to another GPU of the node, one way, 10^9 bytes per second")
    network_gb: PositiveFloat = Field(12.5, description="one GPU's bandwidth to another node, one way, 10^9 bytes per second")

    def device(self) -> Device:
        return Device(
            name=self.name,
            memory=self.memory_gib * GIB,
            bf16_flops=self.bf16_tflops * 1e12,
            fp32_flops=self.fp32_tflops * 1e12,
            bandwidth=self.bandwidth_gb * 1e9,
            link=self.link_gb * 1e9,
            network=self.network_gb * 1e9,
        )


class GivenGenerator(Section):
    tokens_per_second: dict[PositiveInt, PositiveFloat] = Field(
        min_length=1, description="tokens per second of one replica, by its number of concurrent responses"
    )


class GivenTeacher(Section):
    tokens_per_second: PositiveFloat = Field(description="tokens per second of one replica, including prompts")
    batch_seconds: NonNegativeFloat = Field(0.0, description="overhead per batch")


class GivenTrainer(Section):
    tokens_per_second: PositiveFloat = Field(description="tokens per second of one rank, forward and backward")
    step_seconds: NonNegativeFloat = Field(0.0, description="overhead per step")


class Given(Section):
    """Every key is optional: what is missing comes from a run (``--from``) or a device."""

    device: GivenDevice | None = None
    generator: GivenGenerator | None = None
    teacher: GivenTeacher | None = None
    trainer: GivenTrainer | None = None
    sync_seconds: NonNegativeFloat | None = None
    weigh_seconds: NonNegativeFloat | None = None
    response_tokens: PositiveFloat | None = Field(None, description="mean")
    response_spread: NonNegativeFloat = Field(0.5, description="sigma of log-normal lengths")
    prompt_tokens: NonNegativeFloat | None = Field(None, description="mean length of the student's prompt")
    teacher_prompt_tokens: NonNegativeFloat | None = Field(None, description="mean length of the teacher's prompt")


def read_given(path: Path) -> Given:
    """Read a ``--rates`` file. Raises ConfigError with one line per fault: the key and what is allowed."""
    try:
        values: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError:
        raise ConfigError(f"--rates: {path} does not exist") from None
    except (OSError, UnicodeDecodeError, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"--rates: {path}: {error}") from None
    try:
        return Given.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join([f"--rates: {path}:", *(f"  {_line(fault)}" for fault in error.errors())])) from None


def _line(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"] if part != "[key]")
    if fault["type"] == "extra_forbidden":
        section: Any = {"device": GivenDevice, "generator": GivenGenerator, "teacher": GivenTeacher, "trainer": GivenTrainer}
        known = section[fault["loc"][0]] if len(fault["loc"]) > 1 else Given
        return f"{key}: unknown key; allowed: {', '.join(sorted(known.model_fields))}"
    return f"{key}: required" if fault["type"] == "missing" else f"{key}: {fault['msg']} (given: {fault['input']!r})"
