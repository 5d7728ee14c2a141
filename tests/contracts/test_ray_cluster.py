"""What a Ray cluster does and says, on one of this machine that pretends to have two GPUs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.contracts.reliance import relied_on

NOSET = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"


class Seen:
    """What an actor sees of itself."""

    def seen(self) -> dict[str, Any]:
        import ray

        return {
            "pid": os.getpid(), "visible": os.environ.get("CUDA_VISIBLE_DEVICES"), "gpus": ray.get_gpu_ids(),
            "accelerators": ray.get_runtime_context().get_accelerator_ids()["GPU"],
            "title": " ".join(psutil.Process().cmdline()),
        }  # fmt: skip

    def speak(self, words: str) -> None:
        print(words, flush=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        patch.delenv(NOSET, raising=False)
        ray.init(
            address="local",
            num_cpus=4,
            num_gpus=2,
            include_dashboard=False,
            log_to_driver=False,
            namespace="contracts",
            object_store_memory=80 * 2**20,
        )
        yield ray
        ray.shutdown()


@pytest.fixture(scope="module")
def sights(cluster: Any) -> dict[str, dict[str, Any]]:
    """What actors see: with a GPU, with one that Ray must not choose, with none, and with none as ours are started."""
    from actors.cluster.placement import actor_options
    from tests.unit.conftest import make_config

    ours = actor_options(make_config(), "generator")
    asked = {
        "with a GPU": {"num_gpus": 1, "num_cpus": 0},
        "not chosen": {"num_gpus": 1, "num_cpus": 0, "runtime_env": {"env_vars": {NOSET: "1"}}},
        "without": {"num_gpus": 0, "num_cpus": 0},
        "ours without": ours | {"num_cpus": 0},
    }
    made = {name: cluster.remote(Seen).options(**options).remote() for name, options in asked.items()}
    return dict(zip(made, cluster.get([actor.seen.remote() for actor in made.values()]), strict=True))


@relied_on(
    "ray",
    "actors.trainer.rank.TrainerRank.setup",
    "actors.pools.kinds.generator_kind",
    breaks="several engines and ranks would share the first GPU: each takes its only one for number 0",
)
def test_an_actor_with_a_gpu_sees_that_one_alone(sights: dict[str, Any]) -> None:
    seen = sights["with a GPU"]
    assert seen["visible"] in ("0", "1")
    assert seen["gpus"] == [int(seen["visible"])]
    assert seen["accelerators"] == [seen["visible"]]


@relied_on(
    "ray",
    "actors.trainer.rank.TrainerRank.setup",
    breaks="an actor could no longer find out that it was given other GPUs than it sees",
)
def test_where_ray_must_not_choose_an_actor_still_knows_what_it_was_given(sights: dict[str, Any]) -> None:
    seen = sights["not chosen"]
    assert seen["visible"] is None  # it sees all of them
    assert len(seen["accelerators"]) == 1


@relied_on(
    "ray", "actors.cluster.placement.actor_options", breaks="actors that are to use the CPU would take a GPU that is another's"
)
def test_an_actor_without_gpus_sees_all_of_them_unless_we_hide_them(sights: dict[str, Any]) -> None:
    assert sights["without"]["visible"] is None
    assert sights["without"]["accelerators"] == []
    assert sights["ours without"]["visible"] == ""


@relied_on(
    "ray",
    "actors.cluster.placement.half_gpu",
    "actors.cluster.placement.shared_group",
    breaks="a generator would not be on its rank's GPU",
)
def test_two_halves_in_one_bundle_are_the_same_gpu(cluster: Any) -> None:
    from actors.cluster.placement import in_bundle

    group = cluster.util.placement_group([{"GPU": 1, "CPU": 1}])
    actor = cluster.remote(Seen)
    halves = [in_bundle(actor, group, 0, {"num_gpus": 0.5, "num_cpus": 0.5}).remote() for _ in range(2)]
    first, second = cluster.get([each.seen.remote() for each in halves])
    assert first["visible"] == second["visible"]
    assert first["pid"] != second["pid"]
    cluster.util.remove_placement_group(group)


@relied_on(
    "ray",
    "actors.cluster.placement.GroupLease.placed",
    "actors.cluster.processes.end_actor",
    breaks="a worker would wait for resources for ever, or a stopped process not be ended",
)
def test_a_placement_group_s_table_says_whether_and_where_it_is(cluster: Any) -> None:
    group, impossible = (cluster.util.placement_group([{"CPU": count}]) for count in (0.001, 99))
    cluster.get(group.ready())
    table = cluster.util.placement_group_table(group)
    assert table["state"] == "CREATED"
    assert table["bundles_to_node_id"] == {0: cluster.get_runtime_context().get_node_id()}
    assert cluster.util.placement_group_table(impossible)["state"] == "PENDING"
    for each in (group, impossible):
        cluster.util.remove_placement_group(each)


@relied_on(
    "ray",
    "actors.cluster.processes._kill",
    breaks="a worker's process would not be known for one of Ray's, and be left running",
)
def test_the_title_of_a_worker_s_process_is_ray_s(sights: dict[str, Any]) -> None:
    assert all(seen["title"].startswith("ray::") for seen in sights.values())


@relied_on("ray", "actors.cluster.processes.last_lines", breaks="nothing of what a lost worker wrote last would be shown")
def test_what_a_worker_writes_is_in_files_of_its_process_s_number(cluster: Any) -> None:
    from actors.cluster.processes import last_lines

    actor = cluster.remote(Seen).remote()
    cluster.get(actor.speak.remote("these are my last words"))
    pid = cluster.get(actor.seen.remote())["pid"]
    folder = Path(cluster._private.worker._global_node.get_logs_dir_path())
    assert list(folder.glob(f"worker-*-{pid}.out"))
    until = time.monotonic() + 20
    while "these are my last words" not in last_lines(pid):
        assert time.monotonic() < until, "they are not in the log"
        time.sleep(0.05)


@relied_on(
    "ray",
    "actors.cluster.node_labels.check_nodes",
    "actors.cluster.checks.check_object_store",
    "actors.cluster.address.local_clusters",
    breaks="a cluster that is too small would not be found out, or one of this machine not be found",
)
def test_nodes_and_clusters_say_what_they_have(cluster: Any) -> None:
    from actors.cluster.address import local_clusters

    (node,) = cluster.nodes()
    assert node["Alive"] is True
    assert node["Resources"]["GPU"] == 2
    assert isinstance(node["Labels"], dict)
    assert cluster.cluster_resources()["object_store_memory"] == 80 * 2**20
    assert cluster.get_runtime_context().gcs_address in local_clusters()


@relied_on(
    "ray",
    "actors.cluster.joining.check_answers",
    breaks="a run would not join a cluster that is there, or wait for a minute where this machine has none of its nodes",
)
def test_a_cluster_says_which_nodes_it_has_and_a_machine_which_are_here(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import services

    from actors.cluster.address import Address, NoEntryError
    from actors.cluster.joining import check_answers

    address = Address(cluster.get_runtime_context().gcs_address, "RAY_ADDRESS")
    check_answers(address)
    monkeypatch.setattr(services, "find_node_ids", set)
    with pytest.raises(NoEntryError, match=rf"^RAY_ADDRESS: the Ray cluster at {address} has no node on this machine; start"):
        check_answers(address)


@relied_on(
    "ray",
    "actors.control.live_runs.live_runs",
    "actors.control.mailbox.start",
    breaks="live runs would not be found, or their names be free",
)
def test_named_actors_are_listed_with_their_namespace_and_hold_their_name(cluster: Any) -> None:
    options = {"name": "a run", "namespace": "renio", "num_cpus": 0}
    actor = cluster.remote(Seen).options(**options).remote()
    cluster.get(actor.seen.remote())
    assert {"name": "a run", "namespace": "renio"} in cluster.util.list_named_actors(all_namespaces=True)
    with pytest.raises(ValueError, match="a run"):
        cluster.remote(Seen).options(**options).remote()
