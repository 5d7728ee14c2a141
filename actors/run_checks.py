"""What is checked before any engine of a run starts: engine options, models, versions, and the size of the cluster."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ray

from actors.cluster.checks import check_cluster, check_object_store
from actors.cluster.node_labels import check_nodes
from actors.cluster.placement import actor_options
from actors.doctor.same_versions import check_versions
from actors.engines.http_teacher import examine_servers, served_spec
from actors.engines.options import check_engine_options
from actors.engines.own_process import check_shared_memory
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.models import info
from renio_pipeline.preflight import Prepared, prepare


def check_this_node(config: RunConfig, nodes: Sequence[Mapping[str, Any]], names: Collection[str] | None = None) -> None:
    """Check what an engine needs of its node, where there is one node alone. Elsewhere each engine checks its own as it starts.

    Args:
        nodes: as returned by ``ray.nodes()``.
        names: the pools that start; None: all.

    Raises:
        ConfigError: the node's shared memory is too small.
    """
    if len([node for node in nodes if node["Alive"]]) != 1:
        return
    engines = {"generator": ("generator", config.generator)}
    for name, teacher in config.all_teachers.items():
        if teacher.type == "vllm":
            engines[config.teacher_pools[name]] = (config.teacher_key(name), teacher)
    for pool, (key, section) in engines.items():
        if pool in (config.pool_names if names is None else names):
            check_shared_memory(
                key,
                separate_process=section.separate_process,
                tensor_parallel=section.tensor_parallel,
                on_gpu=bool(config.pool(pool).gpus),
            )


def prepare_locally(config: RunConfig, clock: str | None = None) -> Prepared | None:
    """Check what needs no Ray. None if a model has a hub name, which only a node can read. Raises ConfigError.

    ``clock``: see ``prepare``.
    """
    check_engine_options(config)
    names = [config.student, *map(config.teacher_model, config.live_teachers)]
    return prepare(config, clock=clock) if all(map(info.is_local, names)) else None


def check(config: RunConfig, prepared: Prepared | None, clock: str | None = None) -> Prepared:
    """Check what needs the cluster, before any engine starts. Raises ConfigError. ``clock``: see ``prepare``."""
    check_cluster(config, ray.cluster_resources())
    check_nodes(config, ray.nodes())
    check_this_node(config, ray.nodes())
    notes = check_versions(config, ray.nodes())
    prepared = prepared or prepare(config, partial(inspect_on_cluster, config), clock)
    check_object_store(config, prepared, ray.cluster_resources())
    return replace(prepared, notes=(*prepared.notes, *notes, *check_servers(config, prepared)))


def check_servers(config: RunConfig, prepared: Prepared) -> list[str]:
    """Examine the servers of teachers that are served elsewhere, from a node of each one's pool.

    Returns:
        What to tell the user: the servers that do not answer now.

    Raises:
        ConfigError: none answers, or one must not teach.
    """
    notes: list[str] = []
    for name, teacher in config.all_teachers.items():
        if teacher.type == "http":
            task = ray.remote(examine_servers).options(**actor_options(config, config.teacher_pools[name]))
            notes += _cause_raised(task.remote(served_spec(config, prepared, name)))
    return notes


def _cause_raised(ref: Any) -> Any:
    """A task's result, or the ConfigError that ended it."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        raise ConfigError(str(error.cause)) from None


def check_generators(config: RunConfig) -> None:
    """Raises ConfigError if the cluster has no room for a generator: for runs that start nothing else."""
    check_cluster(config, ray.cluster_resources(), ("generator",))
    check_nodes(config, ray.nodes(), ("generator",))
    check_this_node(config, ray.nodes(), ("generator",))


def inspect_on_cluster(config: RunConfig, name: str, key: str) -> info.ModelInfo:
    """Inspect a model: a folder on the driver, a hub name on a node with the resources of the pool that will load it."""
    if info.is_local(name):
        return info.inspect(name, key)
    owners = {config.teacher_key(teacher, "model"): pool for teacher, pool in config.teacher_pools.items()}
    options = actor_options(config, owners.get(key, "generator" if config.generates else "trainer"))
    task = ray.remote(info.inspect).options(**options)
    found: info.ModelInfo = _cause_raised(task.remote(name, key))
    return found
