"""``renio doctor``: which pools may be on which node, and which pairs of nodes talk to each other. Starts no cluster."""

from __future__ import annotations

from typing import Any

from actors.doctor.collectives import rounds
from actors.doctor.nodes import describe
from renio_pipeline.config import RunConfig, load
from renio_pipeline.doctor.requirements import requirements
from tests.ray.runs import ROOT

REQUIRED = requirements()


def ray_node(name: str, host: str = "", *, alive: bool = True, labels: dict[str, str] | None = None, **resources: float) -> Any:
    return {
        "NodeID": f"{name}-0123456789",
        "NodeName": name,
        "NodeManagerHostname": host or name,
        "NodeManagerAddress": "10.0.0.1",
        "Alive": alive,
        "Resources": resources,
        "Labels": labels or {},
    }


def config(*overrides: str) -> RunConfig:
    return load(ROOT / "configs/demo.yaml", overrides)


def test_without_a_configuration_nodes_with_gpus_run_the_pools_if_there_are_any() -> None:
    nodes = [ray_node("gpu", CPU=8, GPU=2), ray_node("head", CPU=4), ray_node("gone", alive=False, GPU=2)]
    found = describe(None, nodes, "head-0123456789", REQUIRED)
    assert [(n.name, n.driver, n.pools, n.wants_gpus) for n in found] == [
        ("head", True, (), False),
        ("gpu", False, ("generator", "teacher", "trainer"), True),
    ]
    assert found[0].packages == {"ray"}


def test_without_gpus_nodes_with_cpus_run_the_pools() -> None:
    found = describe(None, [ray_node("a", CPU=8), ray_node("b", CPU=0.0)], "", REQUIRED)
    assert [(n.name, bool(n.pools), n.wants_gpus) for n in found] == [("a", True, False), ("b", False, False)]


def test_a_configuration_says_by_labels_and_resources_which_pools_a_node_may_run() -> None:
    nodes = [
        ray_node("head", CPU=0.5),
        ray_node("small", CPU=8, GPU=1),
        ray_node("large", CPU=8, GPU=4, labels={"kind": "h100"}),
    ]
    asked = config(
        "pools.generator.gpus=2",
        "generator.tensor_parallel=2",
        "pools.teacher.gpus=1",
        "pools.trainer.gpus=1",
        "pools.trainer.labels.kind=h100",
    )
    found = {node.name: node for node in describe(asked, nodes, "", REQUIRED)}
    assert found["head"].pools == ("weighting",)
    assert found["head"].packages == {"ray", "torch", "numpy", "renio-pipeline"}
    assert not found["head"].wants_gpus
    assert found["small"].pools == ("teacher", "weighting")
    assert found["large"].pools == ("generator", "teacher", "trainer", "weighting")
    assert found["large"].wants_gpus


def test_nodes_are_called_by_what_tells_them_apart() -> None:
    def names(*nodes: Any) -> list[str]:
        return [node.name for node in describe(None, nodes, "", REQUIRED)]

    assert names(ray_node("1", "alpha"), ray_node("2", "beta")) == ["alpha", "beta"]
    assert names(ray_node("one", "same"), ray_node("two", "same")) == ["one", "two"]
    same = [{**ray_node(id, "same"), "NodeName": "10.0.0.1"} for id in ("aaaaaaa", "bbbbbbb")]
    assert names(*same) == ["same-aaaaaa", "same-bbbbbb"]


def test_collectives_run_within_each_node_of_several_gpus_and_between_neighbours() -> None:
    nodes = describe(None, [ray_node(n, CPU=8, GPU=g) for n, g in (("a", 2), ("b", 1), ("c", 2), ("d", 2))], "", REQUIRED)
    found = [[(a.name, b.name) for a, b in pairs] for pairs in rounds(nodes, gpus=True)]
    assert found == [[("a", "a"), ("c", "c"), ("d", "d")], [("a", "b"), ("c", "d")], [("b", "c")]]
    assert [[(a.name, b.name) for a, b in pairs] for pairs in rounds(nodes[:1], gpus=False)] == [[("a", "a")]]
    assert [[(a.name, b.name) for a, b in pairs] for pairs in rounds(nodes[:2], gpus=False)] == [[("a", "b")]]
    assert rounds(nodes[1:2], gpus=True) == []
