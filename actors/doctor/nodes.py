"""The nodes of a Ray cluster, and which pools may be placed on each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from actors.cluster.node_labels import matches
from renio_pipeline.config import RunConfig
from renio_pipeline.doctor.facts import Node
from renio_pipeline.doctor.requirements import Requirements
from renio_pipeline.doctor.versions import needed


def describe(
    config: RunConfig | None, found: Sequence[Mapping[str, Any]], driver_id: str, required: Requirements
) -> tuple[Node, ...]:
    """The nodes that are alive, the driver's first, then by name. ``found``: as ``ray.nodes()`` gives them, in any order."""
    live = [node for node in found if node["Alive"]]
    names = _names(live)
    has_gpus = any(node["Resources"].get("GPU") for node in live)
    nodes = (
        _node(config, node, name, required, driver=node["NodeID"] == driver_id, has_gpus=has_gpus)
        for node, name in zip(live, names, strict=True)
    )
    return tuple(sorted(nodes, key=lambda node: (not node.driver, node.name)))


def _node(
    config: RunConfig | None, node: Mapping[str, Any], name: str, required: Requirements, *, driver: bool, has_gpus: bool
) -> Node:
    resources = node["Resources"]
    gpus = resources.get("GPU", 0.0)
    if config is None:
        usable = gpus if has_gpus else resources.get("CPU", 0.0)
        pools = ["generator", "teacher", "trainer"] if usable else []
        wants_gpus, without_vllm = gpus > 0, set[str]()
    else:
        pools = [pool for pool in config.pool_names if _fits(config, pool, node)]
        wants_gpus = any(config.pool(pool).gpus for pool in pools)
        without_vllm = {config.teacher_pools[n] for n, teacher in config.live_teachers.items() if teacher.type != "vllm"}
    return Node(
        id=node["NodeID"],
        name=name,
        address=node["NodeManagerAddress"],
        driver=driver,
        gpus=gpus,
        pools=tuple(pools),
        object_store=resources.get("object_store_memory", 0.0),
        wants_gpus=wants_gpus,
        packages=needed(pools, required, without_vllm=without_vllm),
    )


def _fits(config: RunConfig, name: str, node: Mapping[str, Any]) -> bool:
    """Whether one replica of a pool could be placed on an empty ``node``."""
    pool = config.pool(name)
    asked = {"CPU": pool.cpus, "GPU": pool.gpus, **pool.resources}
    return matches(node["Labels"], pool.labels) and all(
        node["Resources"].get(unit, 0.0) >= amount for unit, amount in asked.items()
    )


def _names(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """What people call each node: its host name, or if that is not unique, the name or the id that Ray has for it."""
    for key in ("NodeManagerHostname", "NodeName"):
        names = [str(node[key]) for node in nodes]
        if max(Counter(names).values(), default=1) == 1:
            return names
    return [f"{node['NodeManagerHostname']}-{node['NodeID'][:6]}" for node in nodes]
