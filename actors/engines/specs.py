"""What the engines of generators and teachers are built from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from renio_pipeline.config import RunConfig
from renio_pipeline.config.schema import Generator, Lora
from renio_pipeline.config.sections import HIDDEN
from renio_pipeline.models import info
from renio_pipeline.models.adapters import Adapter, read_adapter
from renio_pipeline.preflight import Prepared
from renio_pipeline.types import EndTokens, ScorerSpec


class Sizes(Protocol):
    """The sizes an engine needs, of a run or of a model that is only evaluated."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def context(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """The specification of a replica's vLLM engine."""

    model: str
    dtype: str
    tensor_parallel: int = 1
    separate_process: bool = False
    context: int  # tokens of prompt and response together
    temperature: float  # the distillation temperature
    vocab_size: int  # V: the output rows that student and teacher share
    seed: int = 0
    max_logprobs: int = 0
    sync_backend: str | None = None  # None: the weights never change
    on_gpu: bool = False
    hidden_states: bool = False  # return hidden states instead of text
    lora: Lora | None = None  # serve the model with an adapter, loaded by ``renio_load_adapter``
    adapter: Adapter | None = None  # or with one of a folder, for good
    end_tokens: EndTokens = ()  # of a teacher
    keep_in_flight: bool = False  # new weights may arrive while requests are in flight; these continue with them
    sleeps: bool = False  # on a GPU: it can free its memory and reclaim it
    counts: bool = False  # collect vLLM's own metrics
    options: dict[str, Any] = field(default_factory=dict)
    section: str = "generator"  # of the configuration, for errors

    @property
    def own_process(self) -> bool:
        """Whether the engine is a process of its own, besides the actor's."""
        return self.separate_process or self.tensor_parallel > 1


def scorer_spec(config: RunConfig, prepared: Prepared, teacher: str = "") -> ScorerSpec:
    """The specification of a teacher on the torch engine."""
    section = config.all_teachers[teacher]
    return ScorerSpec(
        model=info.resolve(config.teacher_model(teacher)),
        dtype=section.dtype,
        temperature=config.temperature,
        vocab_size=prepared.sizes_of(teacher).vocab_size,
        kind=config.objective.payload.scored,
        top_k=config.objective.payload.top_k,
        attention=section.attention,
        name=teacher,
        on_gpu=bool(config.pool(config.teacher_pools[teacher]).gpus),
        adapter=adapter.folder if (adapter := _adapter(config, teacher)) else None,
        end_tokens=prepared.end_tokens.get(teacher, ()),
    )


def _adapter(config: RunConfig, teacher: str) -> Adapter | None:
    folder = config.all_teachers[teacher].adapter
    return read_adapter(folder, config.teacher_key(teacher, "adapter")) if folder is not None else None


def generator_spec(config: RunConfig, prepared: Sizes, adapter: Adapter | None = None) -> EngineSpec:
    """The specification of a generator's engine. ``adapter``: of a folder, for a model that is only evaluated."""
    model = info.resolve(config.student)
    lora = config.trainer.lora if config.sync.lora == "adapter" else None
    return _engine_spec(
        config,
        prepared,
        config.generator,
        model,
        "generator",
        lora=lora,
        adapter=adapter,
        sync_backend=config.sync.backend,
        keep_in_flight=config.in_flight == "keep",
        sleeps=config.placement == "colocated",
    )


def teacher_spec(config: RunConfig, prepared: Prepared, teacher: str = "") -> EngineSpec:
    """The specification of a vLLM teacher's engine."""
    return _engine_spec(
        config,
        prepared.sizes_of(teacher),
        config.all_teachers[teacher],
        info.resolve(config.teacher_model(teacher)),
        config.teacher_pools[teacher],
        max_logprobs=config.objective.payload.top_k,
        sync_backend=config.sync.backend if config.follow else None,
        hidden_states=config.objective.payload == HIDDEN,
        adapter=_adapter(config, teacher),
        end_tokens=prepared.end_tokens.get(teacher, ()),
    )


def _engine_spec(config: RunConfig, prepared: Sizes, section: Generator, model: str, pool_name: str, **more: Any) -> EngineSpec:
    return EngineSpec(
        model=model,
        dtype=section.dtype,
        tensor_parallel=section.tensor_parallel,
        separate_process=section.separate_process or section.tensor_parallel > 1,
        context=prepared.context,
        temperature=config.temperature,
        vocab_size=prepared.vocab_size,
        seed=config.seed,
        on_gpu=bool(config.pool(pool_name).gpus),
        counts=config.metrics_port is not None,
        options=section.engine,
        section="generator" if pool_name == "generator" else config.teacher_key(pool_name.partition(".")[2]),
        **more,
    )
