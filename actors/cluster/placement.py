"""From the configuration to Ray: resources, environments, and whether the cluster is large enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from actors.cluster.processes import end_actor
from actors.engines.engine import EngineSpec
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.schema import Generator
from renio_pipeline.models import info
from renio_pipeline.preflight import Prepared
from renio_pipeline.types import ScorerSpec

NEXT_TO_NOTHING = 0.001  # CPUs: a placement group cannot ask for nothing
# An engine on a CPU makes and frees the same large tensors again and again. glibc gives each back to the kernel, which fills it
# with zeros for the next: a third of the exact loss's time. So up to a GiB that is free is kept, in one arena: each of several
# would keep its own.
KEEP_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
COMMON_ENV = {"TOKENIZERS_PARALLELISM": "false", "VLLM_NO_USAGE_STATS": "1", "RAY_DEDUP_LOGS": "0"}


class Sizes(Protocol):
    """What an engine must hold: of a run, or of a model that is only evaluated."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def context(self) -> int: ...


def demands(config: RunConfig) -> dict[str, dict[str, float]]:
    """Logical resources without which each pool cannot work: of every trainer rank, but of one generator and teacher alone.

    By name: CPU, GPU, and those of ``pools.*.resources``. Generators on the ranks' GPUs are as many as these. More of the
    others join as soon as there is room. A deterministic run needs all of them, because its batches depend on them.
    """
    colocated = config.placement == "colocated"
    pools = {name: config.pool(name) for name in config.pool_names}
    fixed = set(pools) if config.deterministic else {"trainer", *(["generator"] if colocated else [])}
    needed = {n: p.replicas if n in fixed else 1 for n, p in pools.items()}
    replica = {name: {"CPU": p.cpus, "GPU": p.gpus, **p.resources} for name, p in pools.items()}
    asked = {name: {unit: amount * needed[name] for unit, amount in units.items()} for name, units in replica.items()}
    if colocated:
        asked["generator"]["GPU"] = 0.0  # they are the ranks'
    return asked


def check_cluster(config: RunConfig, resources: dict[str, float], pools: Sequence[str] | None = None) -> None:
    """Raises ConfigError if the pools (None: all) need more than ``resources`` (ray.cluster_resources()): see ``demands``."""
    asked = {name: demand for name, demand in demands(config).items() if pools is None or name in pools}
    for unit in dict.fromkeys(unit for pool in asked.values() for unit in pool):
        total, has = sum(pool.get(unit, 0.0) for pool in asked.values()), resources.get(unit, 0.0)
        if total > has + 1e-6:
            key, units = {"CPU": ("cpus", "CPUs"), "GPU": ("gpus", "GPUs")}.get(unit, (f"resources.{unit}", unit))
            parts = ", ".join(f"{name} {pool[unit]:g}" for name, pool in asked.items() if pool.get(unit))
            raise ConfigError(
                f"pools.*.{key}: the pools need at least {total:g} {units} ({parts}), and the cluster has {has:g}; lower "
                f"pools.trainer.replicas or pools.*.{key}, or add nodes"
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
        # Engines that share cores and spin while they wait for their other threads take the time from each other.
        threads = {"OMP_NUM_THREADS": str(max(1, int(pool.cpus))), "OMP_WAIT_POLICY": "passive"}
        env |= {**threads, **KEEP_MEMORY, "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    if uses_vllm:
        env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if separate_process else "0"
        env["VLLM_LOG_STATS_INTERVAL"] = "1e9"  # what it counts has an endpoint: the end of its log must say what went wrong
        if not pool.gpus:
            env["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    options: dict[str, Any] = {"num_cpus": pool.cpus, "num_gpus": pool.gpus, "runtime_env": {"env_vars": env | pool.env}}
    options |= {"resources": pool.resources} if pool.resources else {}
    options |= {"label_selector": pool.labels} if pool.labels else {}
    return options | ({"max_concurrency": 1000} if uses_vllm else {})  # those actors are asynchronous


@dataclass(frozen=True)
class GroupLease:
    """An actor in a bundle of a placement group, so that a wait for resources can be told from a slow start."""

    actor: Any
    group: Any
    bundle: int = 0
    owns_group: bool = True  # which then ends with the actor

    def placed(self) -> bool:
        import ray

        return bool(ray.util.placement_group_table(self.group).get("state") == "CREATED")

    def end(self, pid: int) -> None:
        import ray

        end_actor(self.actor, pid, self.group, self.bundle)
        if self.owns_group:
            ray.util.remove_placement_group(self.group)


def lease(actor: Any, arguments: Sequence[Any], options: dict[str, Any]) -> GroupLease:
    """Ask for the resources in ``options`` (see ``actor_options``), and start a Ray actor class there as soon as they come."""
    group = ask_for([options])
    return GroupLease(in_bundle(actor, group, 0, options).remote(*arguments), group)


def ask_for(bundles: Sequence[dict[str, Any]]) -> Any:
    """A placement group, on as few nodes as can be: a bundle for each of these actor options."""
    import ray

    asked = [{"CPU": o["num_cpus"], "GPU": o["num_gpus"], **o.get("resources", {})} for o in bundles]
    some = [{unit: count for unit, count in bundle.items() if count} or {"CPU": NEXT_TO_NOTHING} for bundle in asked]
    labels = [options.get("label_selector", {}) for options in bundles]
    return ray.util.placement_group(some, strategy="PACK", bundle_label_selector=labels if any(labels) else None)


def in_bundle(actor: Any, group: Any, bundle: int, options: dict[str, Any]) -> Any:
    """A Ray actor class that starts there."""
    import ray

    strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
    options = {key: value for key, value in options.items() if key != "label_selector"}  # which is the group's
    return actor.options(scheduling_strategy=strategy, **options)


def shared_group(config: RunConfig) -> Any:
    """For placement colocated: bundle i has the resources of generator i and trainer rank i, and one GPU for both.

    It belongs to the run: both come back to it when they are started again. ``half`` is what each of them takes.
    """
    generator, trainer = config.pools.generator, config.pools.trainer
    names = {*generator.resources, *trainer.resources}
    both = {
        "num_cpus": generator.cpus + trainer.cpus,
        "num_gpus": trainer.gpus,
        "label_selector": trainer.labels,
        "resources": {name: generator.resources.get(name, 0.0) + trainer.resources.get(name, 0.0) for name in names},
    }
    return ask_for([both] * trainer.replicas)


def half(options: dict[str, Any]) -> dict[str, Any]:
    """Actor options with half of the GPU: Ray counts a GPU as full when both have theirs, and shows the same one to both."""
    return options | {"num_gpus": options["num_gpus"] / 2}


def scorer_spec(config: RunConfig, prepared: Prepared, teacher: str = "") -> ScorerSpec:
    """What a teacher on the torch engine is built from."""
    section = config.all_teachers[teacher]
    return ScorerSpec(
        model=info.resolve(config.teacher_model(teacher)),
        dtype=section.dtype,
        temperature=config.temperature,
        vocab_size=prepared.vocab_size,
        kind=config.payload_kind,
        top_k=config.teacher_top_k,
        attention=section.attention,
        name=teacher,
        on_gpu=bool(config.pool(config.teacher_pools[teacher]).gpus),
    )


def generator_spec(config: RunConfig, prepared: Sizes) -> EngineSpec:
    """What a generator's engine is built from."""
    model = info.resolve(config.student)
    lora = config.trainer.lora if config.sync.lora == "adapter" else None
    return _engine_spec(
        config,
        prepared,
        config.generator,
        model,
        "generator",
        lora=lora,
        sync_backend=config.sync.backend,
        keep_in_flight=config.in_flight == "keep",
        sleeps=config.placement == "colocated",
    )


def teacher_spec(config: RunConfig, prepared: Prepared, teacher: str = "") -> EngineSpec:
    """What the engine of a teacher on vLLM is built from."""
    return _engine_spec(
        config,
        prepared,
        config.all_teachers[teacher],
        info.resolve(config.teacher_model(teacher)),
        config.teacher_pools[teacher],
        max_logprobs=config.teacher_top_k,
        sync_backend=config.sync.backend if config.follow else None,
        hidden_states=config.payload_kind == "hidden",
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
        **more,
    )
