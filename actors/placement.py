"""From the configuration to Ray: resources, environments, and whether the cluster is large enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.engine import EngineSpec
from renio_pipeline import models
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.preflight import Prepared
from renio_pipeline.schema import Generator
from renio_pipeline.types import ScorerSpec

COMMON_ENV = {"TOKENIZERS_PARALLELISM": "false", "VLLM_NO_USAGE_STATS": "1", "RAY_DEDUP_LOGS": "0"}


def demands(config: RunConfig) -> dict[str, dict[str, float]]:
    """Logical CPUs and GPUs that each pool asks for."""
    pools = {name: config.pool(name) for name in config.pool_names}
    return {name: {"CPU": p.cpus * p.replicas, "GPU": p.gpus * p.replicas} for name, p in pools.items()}


def check_cluster(config: RunConfig, resources: dict[str, float], pools: Sequence[str] | None = None) -> None:
    """Raises ConfigError if the pools (None: all) ask for more than ``resources`` (ray.cluster_resources())."""
    asked = {name: demand for name, demand in demands(config).items() if pools is None or name in pools}
    for unit, key in (("CPU", "cpus"), ("GPU", "gpus")):
        total, has = sum(pool[unit] for pool in asked.values()), resources.get(unit, 0.0)
        if total > has + 1e-6:
            parts = ", ".join(f"{name} {pool[unit]:g}" for name, pool in asked.items() if pool[unit])
            raise ConfigError(
                f"pools.*.{key}: the pools ask for {total:g} {unit}s ({parts}), and the cluster has {has:g}; lower "
                f"pools.*.replicas or pools.*.{key}, or add nodes"
            )


def check_object_store(config: RunConfig, prepared: Prepared, resources: dict[str, float]) -> None:
    """Raises ConfigError if a step's payload may not fit into the cluster's object store."""
    store = resources.get("object_store_memory", 0.0)
    if prepared.payload_bytes > store:
        raise ConfigError(
            f"payload: a step's {config.payload_kind} may take {prepared.payload_bytes} bytes, and the cluster's object store "
            f"has {store:.0f}; lower batch_size or objective.k, or start Ray with a larger --object-store-memory"
        )


def actor_options(
    config: RunConfig, pool_name: str, *, uses_vllm: bool = False, separate_process: bool = False
) -> dict[str, Any]:
    """Ray options of a pool's actors. One actor holds all GPUs of its replica, so they lie on one node."""
    pool = config.pool(pool_name)
    env = dict(COMMON_ENV)
    if not pool.gpus:
        env |= {"OMP_NUM_THREADS": str(max(1, int(pool.cpus))), "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    if uses_vllm:
        env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if separate_process else "0"
        if not pool.gpus:
            env |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return {"num_cpus": pool.cpus, "num_gpus": pool.gpus, "runtime_env": {"env_vars": env | pool.env}}


def scorer_spec(config: RunConfig, prepared: Prepared, teacher: str = "") -> ScorerSpec:
    """What a teacher on the torch engine is built from."""
    section = config.all_teachers[teacher]
    return ScorerSpec(
        model=models.resolve(config.teacher_model(teacher)),
        dtype=section.dtype,
        temperature=config.temperature,
        vocab_size=prepared.vocab_size,
        kind=config.payload_kind,
        top_k=config.teacher_top_k,
        attention=section.attention,
        name=teacher,
    )


def generator_spec(config: RunConfig, prepared: Prepared) -> EngineSpec:
    """What a generator's engine is built from."""
    model = models.resolve(config.student)
    lora = config.trainer.lora if config.sync.lora == "adapter" else None
    return _engine_spec(config, prepared, config.generator, model, "generator", lora=lora, sync_backend=config.sync.backend)


def teacher_spec(config: RunConfig, prepared: Prepared, teacher: str = "") -> EngineSpec:
    """What the engine of a teacher on vLLM is built from."""
    return _engine_spec(
        config, prepared, config.all_teachers[teacher], models.resolve(config.teacher_model(teacher)),
        config.teacher_pools[teacher], max_logprobs=config.teacher_top_k,
        sync_backend=config.sync.backend if config.follow else None, hidden_states=config.payload_kind == "hidden",
    )  # fmt: skip


def _engine_spec(
    config: RunConfig, prepared: Prepared, section: Generator, model: str, pool_name: str, **more: Any
) -> EngineSpec:
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
        options=section.engine,
        **more,
    )
