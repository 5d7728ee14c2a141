"""Shared memory, object store, open files and clock of a node."""

from __future__ import annotations

from collections.abc import Iterator

from renio_pipeline.doctor.facts import Clock, Cluster, Machine, Node, NodeFacts
from renio_pipeline.doctor.findings import GIB, Finding, Level, size

FEW_FILES, TOO_FEW_FILES = 8192, 1024
MAX_SKEW = 1.0  # seconds


def judge(node: Node, facts: NodeFacts, cluster: Cluster) -> Iterator[Finding]:
    yield shared_memory(node, facts.machine)
    yield object_store(node, cluster)
    yield open_files(node, facts.machine)
    if not node.driver:
        yield clock(node, facts.clock)


def shared_memory(node: Node, machine: Machine) -> Finding:
    """Whether /dev/shm is large enough: Ray's object store and the buffers of NCCL and torch are there."""
    shm = machine.shm or 0
    seen = f"/dev/shm {size(shm)}, object store {size(node.object_store)}"
    if shm >= node.object_store:
        return Finding(node=node.name, check="shm", level="ok", seen=seen)
    return Finding(
        node=node.name,
        check="shm",
        level="fault" if node.pools else "warning",
        seen=f"{seen}: too small, so Ray keeps its objects on disk and NCCL may fail",
        advice=f"give the container at least {size(node.object_store)}: docker run --shm-size, or a volume emptyDir with "
        "medium Memory at /dev/shm; then restart Ray",
    )


def object_store(node: Node, cluster: Cluster) -> Finding:
    seen, payload = size(node.object_store), cluster.payload
    total = sum(each.object_store for each in cluster.nodes)
    if payload is not None and total < payload:
        return Finding(
            node=node.name,
            check="object_store",
            level="warning",
            seen=f"{seen}; {size(total)} in the cluster, and payload.max_bytes is {size(payload)}: the rest goes to disk",
            advice="start Ray with a larger --object-store-memory, or lower payload.max_bytes",
        )
    if node.wants_gpus and node.object_store < GIB:
        return Finding(
            node=node.name,
            check="object_store",
            level="warning",
            seen=f"{seen}: small for the weights of a model",
            advice="start Ray with a larger --object-store-memory; the default is 30 % of the memory",
        )
    return Finding(node=node.name, check="object_store", level="ok", seen=seen)


def open_files(node: Node, machine: Machine) -> Finding:
    limit = machine.open_files
    level: Level = "ok" if limit >= FEW_FILES else "warning" if limit >= TOO_FEW_FILES else "fault"
    advice = "" if level == "ok" else "run `ulimit -n 65536` before `ray start`, or raise LimitNOFILE or the container's ulimit"
    few = "" if level == "ok" else ": Ray needs one per worker and per connection"
    return Finding(node=node.name, check="open_files", level=level, seen=f"{limit} may be open{few}", advice=advice)


def clock(node: Node, found: Clock) -> Finding:
    """Whether the clock agrees with the driver's. The round trip limits the accuracy, so only an excess over it counts."""
    seen = f"{found.skew:+.3f} s from the driver's, known to {found.uncertainty:.3f} s"
    if abs(found.skew) - found.uncertainty <= MAX_SKEW:
        return Finding(node=node.name, check="clock", level="ok", seen=seen)
    return Finding(
        node=node.name,
        check="clock",
        level="warning",
        seen=f"{seen}: times in logs and traces will not match",
        advice="run chrony or systemd-timesyncd on this node",
    )
