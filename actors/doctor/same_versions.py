"""Before a run starts: whether the nodes that its pools may be placed on have the same versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray

from actors.doctor.nodes import describe
from actors.doctor.probes import software
from actors.doctor.remote import by_value, gather, pinned
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.doctor.facts import Software
from renio_pipeline.doctor.findings import listed
from renio_pipeline.doctor.requirements import requirements
from renio_pipeline.doctor.versions import comparable, differences, of_driver

SECONDS = 60.0


def check_versions(config: RunConfig, nodes: Sequence[Mapping[str, Any]], seconds: float = SECONDS) -> tuple[str, ...]:
    """Notes on nodes that gave no answer: a busy node may be late, and is no reason to refuse a run.

    ``nodes``: as ``ray.nodes()`` gives them. Asks nothing of a cluster of one node.

    Raises:
        ConfigError: names each node that differs, and from whom.
    """
    if sum(node["Alive"] for node in nodes) < 2:
        return ()
    required = requirements()
    placed = [n for n in describe(config, nodes, ray.get_runtime_context().get_node_id(), required) if n.pools]
    by_value()
    task = ray.remote(software)
    answers = gather({n.id: task.options(**pinned(n.id)).remote(required.names) for n in placed}, seconds)
    silent = [node.name for node in placed if isinstance(answers[node.id], Exception)]
    found = {n.name: comparable(n, Software(**answers[n.id])) for n in placed if n.name not in silent}
    if differing := differences(found | of_driver(Software(**software(required.names)))):
        lines = [f"{name} has {sentence}" for name, sentences in differing.items() for sentence in sentences]
        raise ConfigError(
            "the nodes that pools may be placed on have different versions; install the same on all of them, or keep a node "
            "out with pools.*.labels (`renio doctor` tells more):\n  " + "\n  ".join(lines)
        )
    if not silent:
        return ()
    return (f"{listed(silent)} did not tell their versions within {seconds:.0f} s; `renio doctor` looks closer",)
