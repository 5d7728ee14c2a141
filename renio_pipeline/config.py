"""A run's configuration: YAML and ``key=value`` overrides in, a frozen, checked RunConfig out.

``load(path, overrides)`` raises ConfigError, whose text names the key, what was given and what is allowed.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, ValidationError, model_validator
from yaml import YAMLError

from renio_pipeline import schema
from renio_pipeline.schema import Section


class ConfigError(ValueError):
    """The user's configuration, data or cluster cannot give this run: exit code 2, before any engine starts."""


class RunConfig(Section):
    """One run. Each section's keys are in ``renio_pipeline.schema``."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    run_dir: str | None = Field(None, description="default: runs/NAME")
    seed: int = Field(0, ge=0, lt=2**31)
    steps: PositiveInt
    batch_size: PositiveInt = Field(32, description="samples in a step")
    samples_per_prompt: PositiveInt = 1
    max_response_tokens: PositiveInt = 1024
    temperature: PositiveFloat = Field(1.0, description="the distillation temperature, of student and teacher alike")
    deterministic: bool = Field(False, description="repeat digit for digit (CPU, float32): fixed replicas and batches")
    student_logprobs: Literal["generator", "trainer"] = "generator"
    student: str = Field(description="a model folder, a hub name, or embedded:student")
    task: str = "arithmetic"
    data: schema.Data = schema.Data()
    sampling: schema.Sampling = schema.Sampling()
    method: schema.Method = schema.Opd()
    weighting: schema.Weighting = schema.Renio()
    objective: schema.Objective = schema.TopKForwardKL()
    generator: schema.Generator = schema.Generator()
    teacher: schema.Teacher = schema.Teacher()
    trainer: schema.Trainer = schema.Trainer()
    sync: schema.Sync = schema.Sync()
    payload: schema.Payload = schema.Payload()
    pools: schema.Pools = schema.Pools()
    evaluate: schema.Evaluate = schema.Evaluate()
    checkpoint: schema.Checkpoint = schema.Checkpoint()
    metrics_port: int | None = Field(None, ge=1, lt=2**16, description="Prometheus endpoint of the run, on the driver's node")

    @property
    def directory(self) -> Path:
        return Path(self.run_dir or f"runs/{self.name}")

    @property
    def teacher_top_k(self) -> int:
        """How many of its likeliest tokens the teacher sends; 0: the sampled token's log-probability alone."""
        return self.objective.k if isinstance(self.objective, schema.TopKForwardKL) else 0

    @property
    def teacher_model(self) -> str:
        """What the teacher pool loads at first: for opsd the student itself."""
        return self.teacher.model or self.student

    @property
    def privileged(self) -> bool:
        """Whether the teacher is shown the reference solution."""
        return isinstance(self.method, schema.Opsd) or self.method.privileged

    @property
    def follow(self) -> schema.Opsd | None:
        """The method, if its teacher's weights follow the student's during the run."""
        return self.method if isinstance(self.method, schema.Opsd) and self.method.teacher != "fixed" else None

    @property
    def payload_kind(self) -> Literal["sampled", "top_k", "hidden"]:
        """What the teacher sends of each token."""
        if isinstance(self.objective, schema.Jsd):
            return "hidden"
        return "top_k" if self.teacher_top_k else "sampled"

    @model_validator(mode="after")
    def _combinations(self) -> RunConfig:
        if self.batch_size % self.samples_per_prompt:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of samples_per_prompt ({self.samples_per_prompt})"
            )
        for pool in ("generator", "teacher"):
            section, gpus = getattr(self, pool), getattr(self.pools, pool).gpus
            if gpus and section.tensor_parallel > 1 and gpus != section.tensor_parallel:
                raise ValueError(f"pools.{pool}.gpus ({gpus}) must equal {pool}.tensor_parallel ({section.tensor_parallel})")
            _refuse_owned(f"{pool}.engine", section.engine, schema.OWNED_ENGINE_KEYS)
        _refuse_owned("trainer.deepspeed", self.trainer.deepspeed, schema.OWNED_DEEPSPEED_KEYS)
        if isinstance(self.method, schema.Opsd) and self.teacher.model not in (None, self.student):
            raise ValueError(
                f"teacher.model ({self.teacher.model}) differs from student ({self.student}), but in opsd the teacher is the "
                "student itself; leave teacher.model out, or set method.type=opd"
            )
        if isinstance(self.method, schema.Opd) and self.teacher.model is None:
            raise ValueError("teacher.model: required, unless method.type is opsd")
        if self.follow and self.sync.backend != "host":
            raise ValueError(f"method.teacher {self.follow.teacher} needs sync.backend=host, not {self.sync.backend}")
        if self.payload_kind == "hidden" and self.teacher.type != "torch":
            raise ValueError(
                f"objective.type jsd needs the teacher's hidden states, which teacher.type {self.teacher.type} does not send; "
                "set teacher.type=torch, or objective.type=top_k_forward_kl"
            )
        if self.teacher.type == "torch" and (
            self.teacher.tensor_parallel > 1 or self.teacher.engine or self.teacher.separate_process
        ):
            raise ValueError(
                "teacher.tensor_parallel, teacher.engine and teacher.separate_process are vLLM's; a torch teacher has none of "
                "them: set teacher.type=vllm"
            )
        if self.trainer.warmup_steps >= self.steps:
            raise ValueError(f"trainer.warmup_steps ({self.trainer.warmup_steps}) must be below steps ({self.steps})")
        if isinstance(self.weighting, schema.Renio) and self.batch_size % (self.weighting.group_size or 1):
            raise ValueError(f"weighting.group_size ({self.weighting.group_size}) must divide batch_size ({self.batch_size})")
        if not (self.pools.trainer.cpus or self.pools.trainer.gpus):
            raise ValueError("pools.trainer.cpus and pools.trainer.gpus are both 0: a rank needs one of them to be placed by")
        if self.sync.backend != "host" and not (self.pools.generator.gpus and self.pools.trainer.gpus):
            raise ValueError(
                f"sync.backend {self.sync.backend!r} moves weights between GPUs, but pools.generator.gpus or "
                "pools.trainer.gpus is 0; use host, or give both pools GPUs"
            )
        if self.deterministic and {self.generator.dtype, self.trainer.dtype} != {"float32"}:
            raise ValueError("deterministic needs generator.dtype and trainer.dtype float32")
        return self


def _refuse_owned(section: str, given: dict[str, Any], owned: dict[str, str]) -> None:
    for key, setting in owned.items():
        outer, _, inner = key.partition(".")
        if outer in given and (not inner or (isinstance(given[outer], dict) and inner in given[outer])):
            instead = f"; set {setting.format(pool=section.partition('.')[0])} instead" if setting else ""
            raise ValueError(f"{section}.{key} is set by the pipeline itself{instead}")


def load(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read ``path`` and apply ``key.path=value`` overrides.

    Raises:
        ConfigError: the file is missing or no YAML, an override is malformed, or a key or value is not allowed.
    """
    try:
        base = OmegaConf.load(path)
        for item in overrides:
            if not item.partition("=")[0].strip() or "=" not in item:
                raise ConfigError(f"override {item!r}: expected key=value, for example steps=10")
        extra = OmegaConf.from_dotlist(list(overrides))
        base_values: Any = OmegaConf.to_container(base)
        extra_values: Any = OmegaConf.to_container(extra)
        if not isinstance(base_values, dict):
            raise ConfigError(f"{path}: expected a mapping of keys, got {type(base_values).__name__}")
        _drop_keys_of_replaced_variants(base_values, extra_values)
        merged = OmegaConf.merge(OmegaConf.create(base_values), extra)
        values = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist") from None
    except IsADirectoryError:
        raise ConfigError(f"configuration file {path} is a folder") from None
    except (OSError, UnicodeDecodeError, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return parse(values, source=str(path))


def parse(values: Any, *, source: str = "configuration") -> RunConfig:
    """Check a plain mapping. Raises ConfigError, one line a fault."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        lines = [f"{source}:"] + [f"  {_explain(fault)}" for fault in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _drop_keys_of_replaced_variants(base: dict[str, Any], overrides: dict[str, Any]) -> None:
    """``weighting.type=uniform`` over a file's renio section leaves out the keys that only renio has."""
    for name in ("method", "weighting", "objective"):
        given, section = overrides.get(name), base.get(name)
        if not (isinstance(given, dict) and isinstance(section, dict)):
            continue
        fields = {v.model_fields["type"].default: v.model_fields.keys() for v in _union(name)}
        old, new = section.get("type"), given.get("type")
        if old != new and isinstance(old, str) and isinstance(new, str) and {old, new} <= fields.keys():
            gone = fields[old] - fields[new]
            base[name] = {key: value for key, value in section.items() if key not in gone}


def _union(name: str) -> list[type[BaseModel]]:
    return list(_variants(RunConfig.model_fields[name].annotation))


def _variants(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _variants(argument)


def _explain(fault: Any) -> str:
    loc = [str(part) for part in fault["loc"]]
    models: list[type[BaseModel]] = [RunConfig]
    keys: list[str] = []
    for part in loc[:-1]:
        tagged = [m for m in models if "type" in m.model_fields and m.model_fields["type"].default == part]
        if tagged and part not in RunConfig.model_fields:  # a union's tag, which is not a key of the file
            models = tagged
            continue
        keys.append(part)
        models = [v for m in models if part in m.model_fields for v in _variants(m.model_fields[part].annotation)]
    tags = {m.model_fields["type"].default for m in models if "type" in m.model_fields} if len(models) > 1 else set()
    key = ".".join([*keys, *(part for part in loc[-1:] if part not in {"[key]", *tags})])
    if fault["type"] == "extra_forbidden":
        known = sorted({name for m in models for name in m.model_fields})
        near = difflib.get_close_matches(loc[-1], known, n=1, cutoff=0.5)
        return f"{key}: unknown key" + (f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(known)}")
    if fault["type"] == "missing":
        return f"{key}: required"
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        allowed = ", ".join(v.model_fields["type"].default for v in _union(loc[0]))
        given = f"{fault['ctx']['tag']!r} is not known" if fault["type"] == "union_tag_invalid" else "required"
        return f"{key}.type: {given}; allowed: {allowed}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{key}: {message}" if loc else message
    return f"{key}: {message} (given: {fault['input']!r})"
