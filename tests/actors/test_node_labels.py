"""Custom resources and node labels of pools: what a configuration may say, and what a cluster must have."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.cluster.checks import check_cluster, demands
from actors.cluster.node_labels import check_nodes, matches
from actors.cluster.placement import actor_options
from renio_pipeline.config import ConfigError, RunConfig
from tests.unit.conftest import make_config

POOL: dict[str, Any] = {"replicas": 2, "cpus": 1, "resources": {"fast_disk": 0.5}, "labels": {"pool": "trainer"}}
WORDS = st.sampled_from(["a", "b", "spot", "on-demand"])


def node(cpus: float, alive: bool = True, **labels: str) -> dict[str, Any]:
    return {"Alive": alive, "Labels": labels, "Resources": {"CPU": cpus, "fast_disk": 1.0}}


def config(**pools: Any) -> RunConfig:
    return make_config(pools={"trainer": POOL, **pools})


@pytest.mark.parametrize(
    ("selector", "value", "allowed"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", None, False),
        ("!a", "b", True),
        ("!a", "a", False),
        ("!a", None, True),
        ("in(a,b)", "b", True),
        ("in(a,b)", "c", False),
        ("in(a)", None, False),
        ("!in(a,b)", "c", True),
        ("!in(a,b)", "a", False),
        ("!in(a,b)", None, True),
        ("in", "in", True),
        ("inner", "inner", True),
    ],
)
def test_a_selector_allows_what_it_says(selector: str, value: str | None, allowed: bool) -> None:
    assert matches({} if value is None else {"key": value}, {"key": selector}) is allowed


@given(values=st.lists(WORDS, min_size=1, max_size=3), value=WORDS)
def test_a_selector_and_its_opposite_share_the_nodes_between_them(values: list[str], value: str) -> None:
    selector = f"in({','.join(values)})"
    assert matches({"k": value}, {"k": selector}) != matches({"k": value}, {"k": f"!{selector}"})


def test_every_selector_must_hold() -> None:
    assert matches({"pool": "a", "zone": "x"}, {"pool": "a", "zone": "x"})
    assert not matches({"pool": "a", "zone": "y"}, {"pool": "a", "zone": "x"})


@pytest.mark.parametrize("selector", ["", "-a", "a-", "in()", "in(a,", "a b", "!!a", "a" * 64, "not(a)", "in(a; b)", "in(a, )"])
def test_what_is_no_selector_is_refused_by_its_key(selector: str) -> None:
    with pytest.raises(ConfigError, match=r"pools\.generator\.labels\.pool"):
        config(generator={"labels": {"pool": selector}})


def test_spaces_in_a_list_are_left_out_because_ray_would_take_them_for_a_part_of_the_values() -> None:
    assert config(generator={"labels": {"pool": "!in(a, b)"}}).pools.generator.labels == {"pool": "!in(a,b)"}


@pytest.mark.parametrize(("name", "text"), [("CPU", "set cpus instead"), ("GPU", "set gpus"), ("memory", "another name")])
def test_rays_own_resources_are_not_custom_ones(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"pools\.teacher\.resources.*{text}"):
        config(teacher={"resources": {name: 1}})


def test_a_pool_of_one_teacher_takes_over_the_labels_of_all() -> None:
    pools = {"teacher": {"labels": {"pool": "teacher"}}, "teachers": {"maths": {"replicas": 2}}}
    found = make_config(teacher={}, teachers={"maths": {"model": "embedded:teacher"}}, pools=pools)
    assert found.pool("teacher.maths").labels == {"pool": "teacher"}


def test_custom_resources_are_asked_for_once_a_replica() -> None:
    assert demands(config())["trainer"] == {"CPU": 2, "GPU": 0, "fast_disk": 1.0}
    assert demands(config(generator=POOL))["generator"]["fast_disk"] == 0.5  # one will do


def test_actors_ask_for_their_pools_resources_and_labels_and_others_for_neither() -> None:
    options = actor_options(config(), "trainer")
    assert (options["resources"], options["label_selector"]) == ({"fast_disk": 0.5}, {"pool": "trainer"})
    assert not {"resources", "label_selector"} & actor_options(config(), "generator").keys()


def test_a_cluster_without_a_custom_resource_is_refused() -> None:
    check_cluster(config(), {"CPU": 8, "fast_disk": 1})
    with pytest.raises(ConfigError, match=r"resources.fast_disk: the pools need at least 1 fast_disk \(trainer 1\).*has 0.5"):
        check_cluster(config(), {"CPU": 8, "fast_disk": 0.5})


def test_nodes_that_the_labels_allow_must_be_enough() -> None:
    check_nodes(config(), [node(8, pool="head"), node(1, pool="trainer"), node(1, pool="trainer")])
    with pytest.raises(ConfigError, match=r"allows 1 of the cluster's 2 nodes, and trainer needs more, 2 CPU .* have 1;"):
        check_nodes(config(), [node(8, pool="head"), node(1, pool="trainer")])


def test_labels_that_no_node_has_are_refused_with_those_that_there_are() -> None:
    nodes = [node(8, pool="head"), node(8), node(8, alive=False, pool="trainer")]
    with pytest.raises(ConfigError) as caught:
        check_nodes(config(), nodes)
    assert str(caught.value) == (
        "pools.trainer.labels: pool=trainer allows 0 of the cluster's 2 nodes, and trainer needs one; the nodes' labels: "
        "pool=head; pool=not given"
    )
    check_nodes(config(), nodes, ["generator"])  # which may be anywhere


def test_colocated_pools_are_on_the_same_nodes() -> None:
    pools = {"generator": POOL, "trainer": POOL}
    assert make_config(placement="colocated", pools=pools).placement == "colocated"
    with pytest.raises(ConfigError, match=r"pools.generator.labels .* must be equal"):
        make_config(placement="colocated", pools=pools | {"generator": POOL | {"labels": {}}})
