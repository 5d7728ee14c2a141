"""The Kubernetes manifests: valid, safe, large enough for the run that they carry, and the same for a cluster and a job."""

from __future__ import annotations

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from actors.cluster.checks import check_cluster
from actors.cluster.node_labels import check_nodes
from renio_pipeline.cli import main
from renio_pipeline.config import RunConfig, load
from renio_pipeline.config.schema import Pool
from tests.deploy.manifests import (
    BUILDS,
    OVERLAYS,
    ROOT,
    amount,
    cluster_of,
    groups_of,
    kuberay_schema,
    node,
    nodes,
    one,
    pods_of,
    resolved,
)

VERSIONS = ("1.30", "1.37")  # of Kubernetes: the oldest and the newest that the manifests are checked for
OURS = {"app.kubernetes.io/part-of": "renio"}
every_build = pytest.mark.parametrize("build", BUILDS)


def written(build: str, folder: Path) -> Path:
    """The configuration that pods of this build see as /etc/renio/run.yaml."""
    path = folder / "run.yaml"
    path.write_text(one(build, "ConfigMap")["data"]["run.yaml"])
    return path


def config_of(build: str, folder: Path) -> RunConfig:
    return load(written(build, folder))


@every_build
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_own_kinds_are_valid_and_so_are_the_pods_of_a_cluster(build: str, version: str) -> None:
    checked = [r for r in resolved(build) if not r["apiVersion"].startswith("ray.io/")]
    assert sorted({r["kind"] for r in checked}) == ["ConfigMap", "Namespace", "NetworkPolicy", "PersistentVolumeClaim"]
    pods = [{"apiVersion": "v1", "kind": "Pod", **template} for template in pods_of(build).values()]
    for resource in [*checked, *pods]:
        kubernetes_validate.validate(resource, version, strict=True)


def test_a_misspelt_key_of_a_pod_is_noticed() -> None:
    template = copy.deepcopy(pods_of("base")["head"])
    template["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **template}, VERSIONS[-1], strict=True)


@every_build
def test_kuberays_kinds_are_valid_by_its_own_schemas(build: str) -> None:
    kind = "RayJob" if build.startswith("jobs/") else "RayCluster"
    resource, schema = one(build, kind), kuberay_schema(kind)
    validator = jsonschema.Draft202012Validator(schema)
    assert [fault.message for fault in validator.iter_errors(resource)] == []
    misspelt = copy.deepcopy(resource)
    misspelt["spec"]["rayVersoin"] = "2"
    assert not validator.is_valid(misspelt)


@every_build
def test_what_kuberay_asks_beyond_its_schemas(build: str) -> None:
    cluster = cluster_of(build)
    for group in groups_of(build).values():
        assert not {"labels", "num-cpus", "num-gpus", "memory", "resources"} & group["rayStartParams"].keys()
        assert not group["template"]["spec"].get("restartPolicy")  # the second autoscaler wants its own
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    locked = dict(re.findall(r"^([\w-]+)==(.+)$", (ROOT / "requirements-cpu.lock").read_text(), re.MULTILINE))
    assert cluster["rayVersion"] == locked["ray"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_job_is_its_overlay_and_nothing_else(overlay: str) -> None:
    job = f"jobs/{overlay}"
    assert cluster_of(job) == cluster_of(overlay)
    ours = [r for r in resolved(overlay) if r["kind"] != "RayCluster"]
    assert [r for r in resolved(job) if r["kind"] != "RayJob"] == ours
    assert {r["metadata"].get("namespace", r["metadata"]["name"]) for r in resolved(job)} == {"renio"}


@every_build
def test_every_container_is_one_that_a_restricted_namespace_takes(build: str) -> None:
    enforced = one(build, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    autoscaler = cluster_of(build)["autoscalerOptions"]["securityContext"]
    pods = pods_of(build)
    contexts = [c["securityContext"] for pod in pods.values() for c in pod["spec"]["containers"]]
    assert enforced == "restricted"
    for context in [autoscaler, *contexts]:
        assert context["runAsNonRoot"]
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for name, pod in pods.items():
        assert pod["spec"]["securityContext"]["runAsUser"] > 0
        assert not {"hostNetwork", "hostIPC", "hostPID"} & pod["spec"].keys()
        assert name == "head" or pod["spec"]["automountServiceAccountToken"] is False  # the autoscaler needs the head's
        assert not [volume for volume in pod["spec"]["volumes"] if "hostPath" in volume]


@every_build
def test_every_container_has_limits_and_every_node_probes_and_a_place_to_write(build: str) -> None:
    for name, pod in pods_of(build).items():
        (container,) = pod["spec"]["containers"]
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys() & container["resources"]["limits"].keys()
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert "/tmp" in mounts
        if name != "submitter":
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
            assert {"/runs", "/home/renio", "/dev/shm", "/etc/renio"} <= mounts.keys()
            assert mounts["/etc/renio"]["readOnly"]
            assert {m["name"] for m in mounts.values()} == {volume["name"] for volume in pod["spec"]["volumes"]}


@every_build
def test_shared_memory_holds_the_object_store_that_ray_would_make(build: str) -> None:
    for name, group in groups_of(build).items():
        spec = group["template"]["spec"]
        (shm,) = [volume["emptyDir"] for volume in spec["volumes"] if volume["name"] == "shm"]
        memory = amount(spec["containers"][0]["resources"]["limits"]["memory"])
        assert shm["medium"] == "Memory"
        assert 0.3 * memory <= amount(shm["sizeLimit"]) <= 0.6 * memory, name  # it counts as the container's


@every_build
def test_the_token_comes_from_a_secret_that_is_not_here(build: str) -> None:
    assert cluster_of(build)["authOptions"] == {"mode": "token", "secretName": "renio-ray-token"}
    assert not [r for r in resolved(build) if r["kind"] == "Secret"]
    variables = [v for pod in pods_of(build).values() for v in pod["spec"]["containers"][0].get("env", [])]
    assert not [v["name"] for v in variables if "TOKEN" in v["name"] and "value" in v]


@every_build
def test_nobody_but_the_operator_and_prometheus_reaches_the_pods(build: str) -> None:
    policies = {r["metadata"]["name"]: r["spec"] for r in resolved(build) if r["kind"] == "NetworkPolicy"}
    for pod in pods_of(build).values():
        assert pod["metadata"]["labels"].items() >= OURS.items()
    assert policies["renio"]["podSelector"]["matchLabels"] == OURS
    assert policies["renio"]["policyTypes"] == ["Ingress", "Egress"]
    assert policies["renio"]["ingress"] == [{"from": [{"podSelector": {"matchLabels": OURS}}]}]
    reached = {
        name: sorted(port["port"] for rule in spec["ingress"] for port in rule["ports"])
        for name, spec in policies.items()
        if name != "renio"
    }
    assert reached == {"renio-head": [8265], "renio-metrics": [8080, 9200]}
    assert all(rule["from"] for spec in policies.values() for rule in spec["ingress"])


@every_build
def test_the_configuration_inside_passes_renio_check(build: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inside = written(build, tmp_path)
    arguments = ["--config", str(inside)]
    if build.startswith("jobs/"):
        program, command, *rest = shlex.split(one(build, "RayJob")["spec"]["entrypoint"])
        assert (program, command) == ("renio", "train")
        of_train = {"--resume", "--takeover"}
        assert of_train <= set(rest)
        arguments = [str(inside) if word == "/etc/renio/run.yaml" else word for word in rest if word not in of_train]
        assert arguments != rest
    assert main(["check", "--offline", *arguments]) == 0
    assert "configuration fine" in capsys.readouterr().out


@every_build
def test_the_run_starts_in_the_smallest_cluster_that_the_autoscaler_may_leave(build: str, tmp_path: Path) -> None:
    config, smallest = config_of(build, tmp_path), nodes(build, "minReplicas")
    totals = {unit: sum(n["Resources"][unit] for n in smallest) for unit in ("CPU", "GPU")}
    check_cluster(config, totals)
    check_nodes(config, smallest)


@every_build
@pytest.mark.parametrize("pool", ["generator", "teacher", "trainer"])
def test_each_pool_has_a_group_of_its_own_that_holds_its_most_replicas(build: str, pool: str, tmp_path: Path) -> None:
    group, section = groups_of(build)[pool], config_of(build, tmp_path).pool(pool)
    assert isinstance(section, Pool)
    assert section.labels == group["labels"] == {"pool": pool}
    units = node(group)["Resources"]
    a_pod = min(units[unit] // needed for unit, needed in (("CPU", section.cpus), ("GPU", section.gpus)) if needed)
    assert a_pod >= 1
    assert a_pod * group["replicas"] >= section.replicas  # without a wait for the autoscaler
    assert a_pod * group["maxReplicas"] >= (section.autoscale.max if section.autoscale else section.replicas)
    assert units["GPU"] % max(section.gpus, 1) == 0  # no GPU of a pod is left over


@every_build
def test_a_run_that_is_told_to_stop_has_time_for_its_checkpoint(build: str, tmp_path: Path) -> None:
    grace = config_of(build, tmp_path).checkpoint.grace_seconds
    for name, group in groups_of(build).items():
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        command = container["lifecycle"]["preStop"]["exec"]["command"]
        waits = {v["name"]: v.get("value") for v in container["env"]}["RAY_JOB_STOP_WAIT_TIME_S"]
        assert spec["terminationGracePeriodSeconds"] > float(waits) > grace
        if name == "head":
            assert re.search(r"pkill -TERM", command[-1])
        else:
            assert spec["terminationGracePeriodSeconds"] > float(command[1]) > grace
    if build.startswith("jobs/"):
        assert one(build, "RayJob")["spec"]["backoffLimit"] >= 1


@every_build
def test_the_runs_folder_is_on_the_volume_and_its_metrics_port_is_open_to_prometheus(build: str, tmp_path: Path) -> None:
    config = config_of(build, tmp_path)
    assert config.run_dir is not None
    assert config.run_dir.startswith("/runs/")
    (claim,) = [r["metadata"]["name"] for r in resolved(build) if r["kind"] == "PersistentVolumeClaim"]
    for group in groups_of(build).values():
        volumes: list[dict[str, Any]] = group["template"]["spec"]["volumes"]
        assert {"name": "runs", "persistentVolumeClaim": {"claimName": claim}} in volumes
    ports = {p["name"]: p["containerPort"] for p in pods_of(build)["head"]["spec"]["containers"][0]["ports"]}
    assert ports["renio-metrics"] == config.metrics_port
