"""From the configuration to Ray: the resources and environment of each actor, and placement groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.cluster.processes import end_actor
from renio_pipeline.config import RunConfig

NEXT_TO_NOTHING = 0.001  # CPUs: a bundle of a placement group cannot be empty
# A CPU engine allocates and frees the same large tensors over and over. glibc returns each to the kernel, which zeroes the
# pages for the next one; that is a third of the exact loss's time. So up to 1 GiB of free memory is kept, in a single arena,
# because each of several arenas would keep its own.
KEEP_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
COMMON_ENV = {
    "TOKENIZERS_PARALLELISM": "false", "VLLM_NO_USAGE_STATS": "1", "RAY_DEDUP_LOGS": "0",
    "PYTHONUTF8": "1",  # torch reads some of its own files in the locale's encoding, which ASCII does not suffice for
}  # fmt: skip


def actor_options(
    config: RunConfig, pool_name: str, *, uses_vllm: bool = False, separate_process: bool = False
) -> dict[str, Any]:
    """Ray options of a pool's actors. One actor holds all GPUs of its replica, so they are on one node."""
    pool = config.pool(pool_name)
    env = dict(COMMON_ENV)
    if not pool.gpus:
        # Engines that share cores and spin while they wait for their threads would slow each other down.
        threads = {"OMP_NUM_THREADS": str(max(1, int(pool.cpus))), "OMP_WAIT_POLICY": "passive"}
        env |= {**threads, **KEEP_MEMORY, "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        if _is_eager(config, pool_name):
            # DeepSpeed and vLLM compile a helper each that hardly matters. It takes seconds of every start and a C++ compiler.
            env["TORCHDYNAMO_DISABLE"] = "1"
    if uses_vllm:
        env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if separate_process else "0"
        env["VLLM_LOG_STATS_INTERVAL"] = "1e9"  # metrics have an endpoint; the end of the log should show errors
        if not pool.gpus:
            env["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    options: dict[str, Any] = {"num_cpus": pool.cpus, "num_gpus": pool.gpus, "runtime_env": {"env_vars": env | pool.env}}
    options |= {"resources": pool.resources} if pool.resources else {}
    options |= {"label_selector": pool.labels} if pool.labels else {}
    return options | ({"max_concurrency": 1000} if uses_vllm else {})  # these actors are asynchronous


def _is_eager(config: RunConfig, pool_name: str) -> bool:
    """Whether nothing in a pool's processes asks for torch.compile."""
    of_teachers = {pool: config.all_teachers[name].engine for name, pool in config.teacher_pools.items()}
    engine = {"generator": config.generator.engine, **of_teachers}.get(pool_name, {})
    return bool(engine.get("enforce_eager", True))


@dataclass(frozen=True)
class GroupLease:
    """An actor in a bundle of a placement group. The group tells a wait for resources from a slow start."""

    actor: Any
    group: Any
    bundle: int = 0
    owns_group: bool = True  # remove the group together with the actor

    def placed(self) -> bool:
        return is_reserved(self.group)

    def end(self, pid: int) -> None:
        import ray

        end_actor(self.actor, pid, self.group, self.bundle)
        if self.owns_group:
            ray.util.remove_placement_group(self.group)


def start_in_group(actor: Any, arguments: Sequence[Any], options: dict[str, Any]) -> GroupLease:
    """Reserve the resources in ``options`` (see ``actor_options``) and start a Ray actor class on them once they are free."""
    group = create_placement_group([options])
    return GroupLease(in_bundle(actor, group, 0, options).remote(*arguments), group)


def create_placement_group(bundles: Sequence[dict[str, Any]]) -> Any:
    """A placement group on as few nodes as possible, with a bundle for each of these actor options."""
    import ray

    asked = [{"CPU": o["num_cpus"], "GPU": o["num_gpus"], **o.get("resources", {})} for o in bundles]
    some = [{unit: count for unit, count in bundle.items() if count} or {"CPU": NEXT_TO_NOTHING} for bundle in asked]
    labels = [options.get("label_selector", {}) for options in bundles]
    return ray.util.placement_group(some, strategy="PACK", bundle_label_selector=labels if any(labels) else None)


def is_reserved(group: Any) -> bool:
    """Whether every bundle of the placement group has its resources, which those of a node that is lost have no more."""
    import ray

    return bool(ray.util.placement_group_table(group).get("state") == "CREATED")


def in_bundle(actor: Any, group: Any, bundle: int, options: dict[str, Any]) -> Any:
    """The actor class with options that start it in this bundle of the group."""
    import ray

    strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
    options = {key: value for key, value in options.items() if key != "label_selector"}  # the group has it
    return actor.options(scheduling_strategy=strategy, **options)


def shared_group(config: RunConfig) -> Any:
    """The group of ``placement: colocated``. Bundle i has the resources of generator i and rank i, and one GPU for both.

    It belongs to the run: a restarted generator or rank returns to its bundle. ``half_gpu`` is what each of them takes.
    """
    generator, trainer = config.pools.generator, config.pools.trainer
    names = {*generator.resources, *trainer.resources}
    both = {
        "num_cpus": generator.cpus + trainer.cpus,
        "num_gpus": trainer.gpus,
        "label_selector": trainer.labels,
        "resources": {name: generator.resources.get(name, 0.0) + trainer.resources.get(name, 0.0) for name in names},
    }
    return create_placement_group([both] * trainer.replicas)


def half_gpu(options: dict[str, Any]) -> dict[str, Any]:
    """Actor options with half a GPU. Ray gives both actors of a bundle the same GPU, and counts it as full."""
    return options | {"num_gpus": options["num_gpus"] / 2}
