"""All findings about a cluster, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterator

from renio_pipeline.doctor import folders, gpus, machine, network, versions
from renio_pipeline.doctor.facts import Cluster, Node, NodeFacts
from renio_pipeline.doctor.findings import CHECKS, Finding
from renio_pipeline.doctor.requirements import Requirements


def findings(cluster: Cluster, required: Requirements) -> list[Finding]:
    """The findings of every check, grouped by node."""
    answered = [(node, facts) for node in cluster.nodes if isinstance(facts := cluster.facts[node.id], NodeFacts)]
    found = [finding for node in cluster.nodes for finding in _of_node(node, cluster, required)]
    found += [*versions.compare(answered, cluster.driver), *network.collectives(cluster), *_pools(cluster)]
    differing = {(f.node, f.check) for f in found if f.level == "fault"}
    order = {node.name: i for i, node in enumerate(cluster.nodes)}
    kept = [f for f in found if f.level != "ok" or (f.node, f.check) not in differing]
    return sorted(kept, key=lambda finding: (order[finding.node], CHECKS.index(finding.check)))


def _of_node(node: Node, cluster: Cluster, required: Requirements) -> Iterator[Finding]:
    facts = cluster.facts[node.id]
    if isinstance(facts, str):
        yield Finding(
            node=node.name,
            check="answer",
            level="fault",
            seen=f"{node.address}: {facts}",
            advice="look at Ray's logs on this node (/tmp/ray/session_latest/logs), and restart Ray there",
        )
        return
    yield Finding(node=node.name, check="node", level="ok", seen=_introduction(node, facts))
    yield from versions.judge(node, facts.software, required)
    yield from gpus.judge(node, facts)
    yield from machine.judge(node, facts, cluster)
    yield from folders.judge(node, facts, cluster)
    if node.pools:
        yield network.ports(node, facts)
    if node.driver and cluster.metrics_port is not None:
        yield network.metrics_port(node, cluster)


def _introduction(node: Node, facts: NodeFacts) -> str:
    pools = f"may run {', '.join(node.pools)}" if node.pools else "runs no pool, so it needs nothing that pools need"
    return f"{facts.machine.host}, {node.address}{', the driver is here' if node.driver else ''}; {pools}"


def _pools(cluster: Cluster) -> Iterator[Finding]:
    if cluster.pools_error is not None:
        where = next((node.name for node in cluster.nodes if node.driver), cluster.nodes[0].name)
        advice = "change these keys of the configuration, or add nodes to the cluster"
        yield Finding(node=where, check="pools", level="fault", seen=cluster.pools_error, advice=advice)
