"""Whether the cluster is large enough for a run."""

from __future__ import annotations

from collections.abc import Sequence

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.preflight import Prepared


def demands(config: RunConfig, names: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """The logical resources without which each pool cannot work, by pool and resource (CPU, GPU, ``pools.*.resources``).

    A run needs all trainer ranks, all colocated generators, and otherwise one generator and one of each teacher; further
    replicas join as soon as there is room. A deterministic run needs all replicas, because its batches depend on their number.

    ``names``: of the pools that start; None: all that a run has.
    """
    colocated = config.placement == "colocated"
    pools = {name: config.pool(name) for name in (config.pool_names if names is None else names)}
    fixed = set(pools) if config.deterministic else {"trainer", *(["generator"] if colocated else [])}
    needed = {n: p.replicas if n in fixed else 1 for n, p in pools.items()}
    replica = {name: {"CPU": p.cpus, "GPU": p.gpus, **p.resources} for name, p in pools.items()}
    asked = {name: {unit: amount * needed[name] for unit, amount in units.items()} for name, units in replica.items()}
    if colocated and "generator" in asked:
        asked["generator"]["GPU"] = 0.0  # they use the ranks' GPUs
    return asked


def check_cluster(config: RunConfig, resources: dict[str, float], pools: Sequence[str] | None = None) -> None:
    """Raises ConfigError if the pools (None: all) need more than ``resources``, as of ``ray.cluster_resources()``.

    It names all that is too little: whoever lowers the CPUs must not learn only then that there are no GPUs.
    """
    short: list[str] = []
    asked = demands(config, pools)
    for unit in dict.fromkeys(unit for pool in asked.values() for unit in pool):
        total, has = sum(pool.get(unit, 0.0) for pool in asked.values()), resources.get(unit, 0.0)
        if total > has + 1e-6:
            key, units = {"CPU": ("cpus", "CPUs"), "GPU": ("gpus", "GPUs")}.get(unit, (f"resources.{unit}", unit))
            parts = ", ".join(f"{name} {pool[unit]:g}" for name, pool in asked.items() if pool.get(unit))
            on_cpus = " (with 0, a pool runs on CPUs)" if unit == "GPU" and not has else ""
            short.append(
                f"pools.*.{key}: the pools need at least {total:g} {units} ({parts}), and the cluster has {has:g}; lower "
                f"pools.trainer.replicas or pools.*.{key}{on_cpus}, or add nodes"
            )
    if short:
        raise ConfigError("; ".join(short))


def check_object_store(config: RunConfig, prepared: Prepared, resources: dict[str, float]) -> None:
    """Raises ConfigError if a step's teacher payloads may not fit into the cluster's object store."""
    store = resources.get("object_store_memory", 0.0)
    if prepared.payload_bytes > store:
        raise ConfigError(
            f"payload: a step's {config.objective.payload.kind} may take {prepared.payload_bytes} bytes, and the cluster's "
            f"object store has {store:.0f}; lower batch_size or objective.k, or start Ray with a larger --object-store-memory"
        )
