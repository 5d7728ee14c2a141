"""A run's configuration: YAML and ``key=value`` overrides in, a frozen, checked RunConfig out.

``load(path, overrides)`` raises ConfigError, whose text names the key, what was given and what is allowed.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, model_validator
from yaml import YAMLError

from renio_pipeline import schema
from renio_pipeline.combinations import check_combinations
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
    max_staleness: NonNegativeInt = Field(0, description="weight versions that generation may lag behind; 0: on-policy")
    in_flight: Literal["drain", "keep"] = Field(
        "drain", description="a sync waits for the responses under way, or changes the weights beneath them"
    )
    placement: Literal["separate", "colocated"] = Field(
        "separate", description="colocated: a generator and a trainer rank share each GPU, and take turns"
    )
    student_logprobs: Literal["generator", "trainer"] = "generator"
    filter: Literal["all", "correct", "incorrect"] = Field("all", description="train on samples of this verdict alone")
    filter_batch: Literal["refill", "shrink"] = Field("refill", description="draw until batch_size are kept, or train on fewer")
    unfinished: bool = Field(False, description="filter incorrect takes responses without a final answer too")
    student: str = Field(description="a model folder, a hub name, or embedded:student")
    task: str = Field("arithmetic", description="one of the tasks' registry, or a file of yours: path.py:Class")
    task_options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the task's constructor")
    data: schema.Data = schema.Data()
    sampling: schema.Sampling = schema.Sampling()
    method: schema.Method = schema.Opd()
    weighting: schema.Weighting = schema.Renio()
    objective: schema.Objective = schema.TopKForwardKL()
    generator: schema.Generator = schema.Generator()
    teacher: schema.Teacher = schema.Teacher()
    teachers: dict[str, schema.Teacher] | None = Field(
        None, description="several, each for the rows that name it; no `teacher`"
    )
    trainer: schema.Trainer = schema.Trainer()
    sync: schema.Sync = schema.Sync()
    payload: schema.Payload = schema.Payload()
    pools: schema.Pools = schema.Pools()
    evaluate: schema.Evaluate = schema.Evaluate()
    checkpoint: schema.Checkpoint = schema.Checkpoint()
    faults: schema.Faults = schema.Faults()
    metrics_port: int | None = Field(None, ge=0, lt=2**16, description="Prometheus endpoint on the driver's node; 0: any free")
    metrics_discovery: str | None = Field(None, description="a folder that Prometheus' file_sd_configs watches")
    sinks: schema.Sinks = Field((), description="of the metrics, beside metrics.jsonl and Prometheus")
    wandb: schema.Wandb = schema.Wandb()
    trace: schema.Trace = schema.Trace()

    @property
    def directory(self) -> Path:
        return Path(self.run_dir or f"runs/{self.name}")

    @property
    def teacher_top_k(self) -> int:
        """How many of its likeliest tokens the teacher sends; 0: the sampled token's log-probability alone."""
        return self.objective.k if isinstance(self.objective, schema.TopKForwardKL) else 0

    @property
    def trained_objective(self) -> schema.Objective:
        """The objective as trainer ranks compute it: strictly on-policy there is no older policy to correct for."""
        if isinstance(self.objective, schema.Sampled) and self.max_staleness == 0:
            return self.objective.model_copy(update={"importance_clip": None})
        return self.objective

    @property
    def all_teachers(self) -> dict[str, schema.Teacher]:
        """Each teacher by the name that rows are routed by; a single one's is empty."""
        return self.teachers or {"": self.teacher}

    def teacher_model(self, name: str = "") -> str:
        """What a teacher's pool loads at first: for opsd the student itself."""
        return self.all_teachers[name].model or self.student

    def teacher_key(self, name: str, key: str = "") -> str:
        """A teacher's section, or a key of it, as the user writes it: ``teacher.dtype`` or ``teachers.maths.dtype``."""
        section = f"teachers.{name}" if self.teachers else "teacher"
        return f"{section}.{key}" if key else section

    def pool(self, name: str) -> schema.AnyPool:
        """A pool by its name: ``generator``, ``teacher``, ``teacher.maths``, ``trainer``, ``weighting``."""
        kind, _, teacher = name.partition(".")
        pool: schema.AnyPool = getattr(self.pools, kind)
        return self.pools.teachers.get(teacher, pool) if teacher else pool

    def pool_key(self, name: str) -> str:
        """Where the user writes a pool's keys, below ``pools``."""
        kind, _, teacher = name.partition(".")
        return f"teachers.{teacher}" if teacher in self.pools.teachers else kind

    @property
    def teacher_pools(self) -> dict[str, str]:
        """The name of each teacher's pool."""
        return {name: f"teacher.{name}" if name else "teacher" for name in self.all_teachers}

    @property
    def pool_names(self) -> list[str]:
        return ["generator", *self.teacher_pools.values(), "trainer", "weighting"]

    @property
    def autoscaled(self) -> dict[str, schema.Autoscale]:
        """The pools that follow the load, and between which sizes."""
        pools = {name: self.pool(name) for name in self.pool_names}
        return {n: p.autoscale for n, p in pools.items() if isinstance(p, schema.Pool) and p.autoscale is not None}

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

    @model_validator(mode="before")
    @classmethod
    def _pools_of_teachers(cls, values: Any) -> Any:
        """What a teacher's own pool does not say, ``pools.teacher`` says."""
        pools = values.get("pools") if isinstance(values, dict) else None
        if not isinstance(pools, dict) or not isinstance(own := pools.get("teachers"), dict):
            return values
        shared = pools.get("teacher")
        shared = shared if isinstance(shared, dict) else {}
        inherited = {name: {**shared, **pool} if isinstance(pool, dict) else pool for name, pool in own.items()}
        return {**values, "pools": {**pools, "teachers": inherited}}

    @model_validator(mode="after")
    def _combinations(self) -> RunConfig:
        check_combinations(self)
        return self


def load(path: str | Path | Sequence[str | Path], overrides: Sequence[str] = ()) -> RunConfig:
    """Read a file, or several of which a later one's keys count, and apply ``key.path=value`` overrides.

    Raises:
        ConfigError: a file is missing or no YAML, an override is malformed, or a key or value is not allowed.
    """
    paths = [path] if isinstance(path, (str, Path)) else list(path)
    for item in overrides:
        if not item.partition("=")[0].strip() or "=" not in item:
            raise ConfigError(f"override {item!r}: expected key=value, for example steps=10")
    layers: list[tuple[str, Callable[[], Any]]] = [(str(p), partial(OmegaConf.load, p)) for p in paths]
    if overrides:
        layers.append((f"{paths[-1]} with {' '.join(overrides)}", partial(OmegaConf.from_dotlist, list(overrides))))
    values: dict[str, Any] = {}
    for source, read in layers:
        with _reading(source):
            layer: Any = OmegaConf.to_container(read())
            if not isinstance(layer, dict):
                raise ConfigError(f"{source}: expected a mapping of keys, got {type(layer).__name__}")
            _drop_keys_of_replaced_variants(values, layer)
            values = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.merge(values, layer)))
    with _reading(layers[-1][0]):
        resolved = OmegaConf.to_container(OmegaConf.create(values), resolve=True, throw_on_missing=True)
    return parse(resolved, source=" + ".join(map(str, paths)))


@contextmanager
def _reading(source: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ConfigError(f"configuration file {source} does not exist") from None
    except IsADirectoryError:
        raise ConfigError(f"configuration file {source} is a folder") from None
    except (OSError, UnicodeDecodeError, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"{source}: {error}") from None


def parse(values: Any, *, source: str = "configuration") -> RunConfig:
    """Check a plain mapping. Raises ConfigError, one line a fault."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        lines = [f"{source}:"] + [f"  {_explain(fault)}" for fault in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _drop_keys_of_replaced_variants(base: dict[str, Any], overrides: dict[str, Any]) -> None:
    """``weighting.type=uniform`` over a file's renio section leaves out the keys that only renio has; ``teachers`` over a
    file's ``teacher`` leaves that out."""
    if overrides.get("teachers") is not None and "teacher" not in overrides:
        base.pop("teacher", None)
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


def _is_mapping(annotation: Any) -> bool:
    return any(typing.get_origin(a) is dict for a in (annotation, *typing.get_args(annotation)))


def _explain(fault: Any) -> str:
    loc = [str(part) for part in fault["loc"]]
    models: list[type[BaseModel]] = [RunConfig]
    keys: list[str] = []
    named = False  # by the user: a key of a mapping
    for part in loc[:-1]:
        if named:
            keys.append(part)
            named = False
            continue
        tagged = [m for m in models if "type" in m.model_fields and m.model_fields["type"].default == part]
        if tagged and part not in RunConfig.model_fields:  # a union's tag, which is not a key of the file
            models = tagged
            continue
        keys.append(part)
        annotations = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        named = any(_is_mapping(a) for a in annotations)
        models = [v for a in annotations for v in _variants(a)]
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
