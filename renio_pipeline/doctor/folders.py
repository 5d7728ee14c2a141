"""The run directory and the model folders, as seen from each node."""

from __future__ import annotations

from collections.abc import Iterator

from renio_pipeline.doctor.facts import Cluster, Node, NodeFacts
from renio_pipeline.doctor.findings import Finding


def judge(node: Node, facts: NodeFacts, cluster: Cluster) -> Iterator[Finding]:
    yield run_dir(node, facts, cluster)
    for missing in facts.missing_models:
        yield Finding(
            node=node.name,
            check="models",
            level="fault",
            seen=f"{missing}: no such model folder here",
            advice="put the model where every node of its pools sees it under this path, or use its name on the hub",
        )


def run_dir(node: Node, facts: NodeFacts, cluster: Cluster) -> Finding:
    """Whether the node shares the run directory with the driver: the driver and the trainer ranks write there."""
    probe, folder = facts.folder, cluster.folder
    if folder is None:
        seen = "not checked: neither --run-dir nor --config was given"
    elif probe is None:
        seen = f"{folder}: not needed here, because no pool is placed on this node"
    elif probe.seen and probe.answered:
        seen = f"{folder}: seen and writable"
    else:
        problem = "the driver's files are not visible" if not probe.seen else "the driver does not see this node's files"
        reason = f" ({probe.error})" if probe.error else ""
        return Finding(
            node=node.name,
            check="run_dir",
            level="fault",
            seen=f"{folder}: {problem}{reason}",
            advice="choose a run_dir on a file system that is mounted, and writable, on every node",
        )
    return Finding(node=node.name, check="run_dir", level="ok", seen=seen)
