"""Ports between nodes, and collectives between two processes."""

from __future__ import annotations

from collections.abc import Iterator

from renio_pipeline.doctor.facts import Cluster, Collective, Node, NodeFacts
from renio_pipeline.doctor.findings import Finding, listed

TO_DO = {
    "nccl": "find the reason with NCCL_DEBUG=INFO in pools.trainer.env; NCCL_SOCKET_IFNAME there chooses the network "
    "interface, NCCL_IB_DISABLE=1 avoids InfiniBand, NCCL_P2P_DISABLE=1 avoids the direct path between GPUs",
    "gloo": "set GLOO_SOCKET_IFNAME in pools.trainer.env to the right network interface; the node's host name must resolve "
    "to an address that the other nodes reach",
}


def ports(node: Node, facts: NodeFacts) -> Finding:
    """Whether this node reaches a socket on every other node: trainer ranks meet at any free port of rank 0's node."""
    failed = [reach for reach in facts.reaches if reach.error is not None]
    free = facts.machine.ports
    some = f"{free[0]}-{free[1]}" if free else "that the kernel assigns"
    if not facts.reaches:
        return Finding(node=node.name, check="ports", level="ok", seen="no other node runs pools")
    if not failed:
        return Finding(node=node.name, check="ports", level="ok", seen=f"reaches {listed([r.target for r in facts.reaches])}")
    return Finding(
        node=node.name,
        check="ports",
        level="fault",
        seen="; ".join(f"cannot reach port {reach.port} of {reach.target}: {reach.error}" for reach in failed),
        advice=f"open the TCP ports {some} between the nodes (firewall, security group, network policy)",
    )


def metrics_port(node: Node, cluster: Cluster) -> Finding:
    """Whether the driver can listen on the port that Prometheus will scrape."""
    if cluster.metrics_error is None:
        return Finding(node=node.name, check="metrics_port", level="ok", seen=f"port {cluster.metrics_port} is free")
    return Finding(
        node=node.name,
        check="metrics_port",
        level="fault",
        seen=f"port {cluster.metrics_port} cannot be used: {cluster.metrics_error}",
        advice="set metrics_port to another port, or to 0 for any free port",
    )


def collectives(cluster: Cluster) -> Iterator[Finding]:
    yield from map(_collective, cluster.collectives)
    if not any(node.wants_gpus for node in cluster.nodes):
        where = next((node.name for node in cluster.nodes if node.driver), cluster.nodes[0].name)
        yield Finding(node=where, check="nccl", level="ok", seen="not run: no GPUs")
    for name in cluster.busy:
        yield Finding(
            node=name,
            check="nccl",
            level="warning",
            seen="not run: this node's GPUs are in use by another job of the cluster",
            advice="run `renio doctor` again after the job has ended",
        )


def _collective(found: Collective) -> Finding:
    first, second = found.nodes
    between = f"between {first} and {second}" if first != second else "between two processes on this node"
    advice = TO_DO[found.backend]
    if found.error is not None:
        seen = f"{between}: {found.error}"
        if found.error.startswith("no answer"):
            advice = f"raise --timeout, in case the nodes are slow at importing torch for the first time; otherwise {advice}"
    elif found.devices is not None and found.devices != 1:
        seen = f"a process with one GPU sees {found.devices}"
        advice = "unset RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES and restart Ray on this node"
    elif not found.correct:
        seen = f"{between}: an all-reduce or a broadcast returned wrong numbers"
    else:
        seen = f"{between}: all-reduce and broadcast are correct, {found.bandwidth / 1e9:.2f} GB/s"
        return Finding(node=first, check=found.backend, level="ok", seen=seen)
    return Finding(node=first, check=found.backend, level="fault", seen=seen, advice=advice)
