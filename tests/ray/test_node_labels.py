"""Pools of one cluster on nodes of their own: real raylets with labels and custom resources, actors that do nothing."""

from __future__ import annotations

import subprocess
import sys

from tests.ray.runs import ROOT

PROGRAM = """
import ray
from ray.cluster_utils import Cluster
from actors.run_checks import check
from actors.cluster.placement import actor_options, create_placement_group, half_gpu, in_bundle, start_in_group, shared_group
from renio_pipeline.config import ConfigError, load

def config(*overrides):
    return load("configs/demo.yaml", overrides)

class Here:
    def node(self):
        return ray.get_runtime_context().get_node_labels()["pool"]

def placed(group, seconds=20.0):
    return group.wait(seconds)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "labels": {"pool": "head"}})
for pool, extra in (("generator", {}), ("teacher", {}), ("trainer", {"slot": 2})):
    cluster.add_node(num_cpus=1, labels={"pool": pool}, resources=extra)
ray.init(address=cluster.address, namespace="renio", log_to_driver=False)
actor = ray.remote(Here)

own = config(*(f"pools.{p}.labels.pool={p}" for p in ("generator", "teacher", "trainer")), "pools.weighting.labels.pool=head")
leases = {p: start_in_group(actor, (), actor_options(own, p)) for p in ("trainer", "teacher", "generator", "weighting")}
print("SEEN", {p: ray.get(found.actor.node.remote(), timeout=60) for p, found in leases.items()})
for found in leases.values():
    found.end(0)

either = actor_options(config("pools.teacher.labels.pool=in(teacher, trainer)", "pools.teacher.resources.slot=0.5"), "teacher")
found = start_in_group(actor, (), either)
print("SLOT", ray.get(found.actor.node.remote(), timeout=60))
found.end(0)

shared = config("placement=colocated", *(f"pools.{p}.{key}" for p in ("generator", "trainer")
                for key in ("labels.pool=trainer", "resources.slot=0.5")))
group = shared_group(shared)
both = [in_bundle(actor, group, 0, half_gpu(actor_options(shared, p))).remote() for p in ("generator", "trainer")]
print("SHARED", ray.get([each.node.remote() for each in both], timeout=60))
ray.util.remove_placement_group(group)

group = create_placement_group([actor_options(config("pools.trainer.labels.pool=elsewhere"), "trainer")])
print("NOWHERE", placed(group, 3.0))
try:
    check(config("pools.trainer.labels.pool=elsewhere"), None)
except ConfigError as error:
    print("REFUSED", error)
"""


def test_each_pools_actors_start_on_the_nodes_that_its_labels_and_resources_name() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, text=True, capture_output=True, timeout=300)
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert done.returncode == 0, done.stderr
    assert lines["SEEN"] == str({"trainer": "trainer", "teacher": "teacher", "generator": "generator", "weighting": "head"})
    assert lines["SLOT"] == "trainer"
    assert lines["SHARED"] == "['trainer', 'trainer']"
    assert lines["NOWHERE"] == "False"
    assert lines["REFUSED"].startswith("pools.trainer.labels: pool=elsewhere allows 0 of the cluster's 4 nodes")
