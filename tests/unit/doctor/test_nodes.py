"""``renio doctor``: what it says of a node's GPUs, memory, limits, clock, folders and network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from renio_pipeline.doctor.facts import Clock, Collective, Driver, FolderProbe, GpuProcess, Machine, NodeFacts, Reach, Software
from renio_pipeline.doctor.nvidia_smi import parse
from tests.unit.doctor_facts import GIB, HEAD, cluster, facts, gpu, machine, node, only, software, wrong

NOSET = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"
MENDED_BY_RESTART = f"unset {NOSET} and restart Ray on this node"
DRIVER = machine().driver
assert DRIVER is not None
USER = GpuProcess(pid=7, name="python", used=None)


def of(**changes: Any) -> NodeFacts:
    return facts("b", machine=machine(**changes))


@pytest.mark.parametrize(
    ("found", "check", "seen", "advice"),
    [
        (
            of(shm=64 * 2**20),
            "shm",
            "/dev/shm 64 MiB, object store 32 GiB: too small, so Ray keeps its objects on disk and NCCL may fail",
            "give the container at least 32 GiB: docker run --shm-size, or a volume emptyDir with medium Memory at /dev/shm; "
            "then restart Ray",
        ),
        (
            of(open_files=512),
            "open_files",
            "512 may be open: Ray needs one per worker and per connection",
            "run `ulimit -n 65536` before `ray start`, or raise LimitNOFILE or the container's ulimit",
        ),
        (
            of(driver=replace(DRIVER, cuda="12.8")),
            "cuda",
            "driver 580.65.06 for CUDA 12.8, torch for CUDA 13.0",
            "update the NVIDIA driver to one for CUDA 13.0 or later, or install torch for CUDA 12.8",
        ),
        (
            of(driver=None, driver_error="nvidia-smi is not on the PATH"),
            "gpus",
            "Ray counts 2 GPUs, but nvidia-smi is not on the PATH",
            "install the NVIDIA driver, or give the container its tools (NVIDIA_DRIVER_CAPABILITIES=compute,utility)",
        ),
        (
            of(driver=replace(DRIVER, gpus=(gpu(),))),
            "gpus",
            "1 GPUs (H100 80 GiB), Ray counts 2",
            "start Ray with --num-gpus equal to the number of GPUs of this node, or leave the option out",
        ),
        (
            of(environment={NOSET: "1"}),
            "gpus",
            f"{NOSET} is set: every engine and trainer rank would use GPU 0",
            MENDED_BY_RESTART,
        ),
        (
            facts("b", folder=FolderProbe(seen=False, answered=False, error="No such file or directory")),
            "run_dir",
            "/runs/x: the driver's files are not visible (No such file or directory)",
            "choose a run_dir on a file system that is mounted, and writable, on every node",
        ),
        (
            facts("b", folder=FolderProbe(seen=True, answered=False, error="Read-only file system")),
            "run_dir",
            "/runs/x: the driver does not see this node's files (Read-only file system)",
            "choose a run_dir on a file system that is mounted, and writable, on every node",
        ),
        (
            facts("b", missing_models=("student: /models/x",)),
            "models",
            "student: /models/x: no such model folder here",
            "put the model where every node of its pools sees it under this path, or use its name on the hub",
        ),
        (
            facts("b", reaches=(Reach(target="a", port=40000, error="Connection refused"),)),
            "ports",
            "cannot reach port 40000 of a: Connection refused",
            "open the TCP ports 32768-60999 between the nodes (firewall, security group, network policy)",
        ),
        (
            "no answer within 60 s",
            "answer",
            "10.0.0.1: no answer within 60 s",
            "look at Ray's logs on this node (/tmp/ray/session_latest/logs), and restart Ray there",
        ),
    ],
)
def test_a_fault_of_a_node_is_told_with_what_to_do(found: NodeFacts | str, check: str, seen: str, advice: str) -> None:
    assert only(cluster(b=found)) == ("b", check, "fault", seen, advice)


def test_torch_without_cuda_on_a_node_with_gpus_is_a_fault() -> None:
    cpu = Software(python="3.11.7", packages=software().packages, code="c0de")
    told = only(cluster(b=facts("b", software=cpu)))
    assert told[1:4] == ("cuda", "fault", "driver 580.65.06 for CUDA 13.0, torch for CUDA none")


@pytest.mark.parametrize(
    ("found", "check", "seen"),
    [
        (
            facts("b", clock=Clock(skew=-4.2, uncertainty=0.1)),
            "clock",
            "-4.200 s from the driver's, known to 0.100 s: times in logs and traces will not match",
        ),
        (of(open_files=4096), "open_files", "4096 may be open: Ray needs one per worker and per connection"),
        (
            of(driver=replace(DRIVER, gpus=(gpu(), gpu(), gpu())), environment={"CUDA_VISIBLE_DEVICES": "0,1"}),
            "gpus",
            "3 GPUs (H100 80 GiB), Ray counts 2; CUDA_VISIBLE_DEVICES=0,1: the others stay idle",
        ),
        (
            of(driver=replace(DRIVER, gpus=(gpu(), gpu(free=9 * GIB, processes=(USER,))))),
            "gpu_memory",
            "GPU 1: 9 GiB of 80 GiB are free; used by python (process 7)",
        ),
    ],
    ids=["clock", "files", "visible", "memory"],
)
def test_what_a_run_may_survive_is_a_warning(found: NodeFacts, check: str, seen: str) -> None:
    told = only(cluster(b=found))
    assert told[:4] == ("b", check, "warning", seen)
    assert told[4]


def test_a_driver_of_the_same_major_version_of_cuda_is_compatible_with_torch_and_only_warned_of() -> None:
    found = facts("b", software=replace(software(), torch_cuda="13.1"), machine=machine(driver=replace(DRIVER, cuda="13.0")))
    told = [(f.check, f.level) for f in wrong(cluster(b=found)) if f.check == "cuda"]
    assert told == [("cuda", "warning")]


def test_the_instances_of_divided_gpus_are_what_ray_counts() -> None:
    divided = of(driver=replace(DRIVER, gpus=(gpu(instances=7),)))
    assert wrong(cluster(of={"b": node("b", gpus=7)}, b=divided)) == []
    (found,) = wrong(cluster(of={"b": node("b", gpus=8)}, b=divided))
    assert found.seen == "1 GPUs (H100 80 GiB), in 7 MIG instances, Ray counts 8"


def test_nvidia_smi_tells_the_instances_of_a_divided_gpu() -> None:
    one = "<gpu><mig_devices>{}</mig_devices></gpu>"
    report = "<nvidia_smi_log><driver_version>1</driver_version>{}</nvidia_smi_log>"
    gpus = one.format("<mig_device/><mig_device/>") + one.format("None")
    assert [each.instances for each in parse(report.format(gpus)).gpus] == [2, 0]


def test_a_skew_that_the_round_trip_may_explain_is_none() -> None:
    assert wrong(cluster(b=facts("b", clock=Clock(skew=4.2, uncertainty=3.5)))) == []


def test_little_shared_memory_where_no_pool_runs_is_a_warning() -> None:
    found = facts("a", machine=machine(shm=64 * 2**20, driver=None), folder=None)
    assert only(cluster(of={"a": HEAD}, a=found))[:3] == ("a", "shm", "warning")


def test_an_object_store_that_is_smaller_than_the_payload_is_a_warning() -> None:
    found = wrong(replace(cluster(), payload=100 * GIB))
    assert [(f.node, f.check, f.level) for f in found] == [(name, "object_store", "warning") for name in "abc"]
    assert "96 GiB in the cluster, and payload.max_bytes is 100 GiB" in found[0].seen
    assert wrong(replace(cluster(), payload=96 * GIB)) == []


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"error": "DistBackendError: NCCL error"}, "between b and c: DistBackendError: NCCL error"),
        ({"correct": False}, "between b and c: an all-reduce or a broadcast returned wrong numbers"),
        ({"devices": 8}, "a process with one GPU sees 8"),
    ],
    ids=["error", "wrong", "devices"],
)
def test_a_collective_that_fails_is_a_fault_of_the_pair(changes: dict[str, Any], seen: str) -> None:
    good = Collective(backend="nccl", nodes=("b", "c"), correct=True, bandwidth=2e10, devices=1)
    assert wrong(replace(cluster(), collectives=(good,))) == []
    told = only(replace(cluster(), collectives=(replace(good, **changes),)))
    assert told[:4] == ("b", "nccl", "fault", seen)
    assert told[4] == MENDED_BY_RESTART if "devices" in changes else "NCCL_DEBUG=INFO" in told[4]


def test_gpus_that_another_job_uses_are_said_to_be_untested() -> None:
    told = only(replace(cluster(), busy=("c",)))
    assert told[:4] == ("c", "nccl", "warning", "not run: this node's GPUs are in use by another job of the cluster")


def test_a_metrics_port_that_is_taken_and_pools_that_do_not_fit_are_faults_of_the_drivers_node() -> None:
    told = only(replace(cluster(), metrics_port=9200, metrics_error="Address already in use"))
    assert told[:4] == ("a", "metrics_port", "fault", "port 9200 cannot be used: Address already in use")
    told = only(replace(cluster(), pools_error="pools.*.gpus: too many"))
    assert told[:4] == ("a", "pools", "fault", "pools.*.gpus: too many")


REPORT = """<?xml version="1.0" ?><!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log><driver_version>580.65.06</driver_version><cuda_version>13.0</cuda_version><attached_gpus>1</attached_gpus>
<gpu id="00000000:01:00.0"><product_name>NVIDIA H100 80GB HBM3</product_name>
<fb_memory_usage><total>81559 MiB</total><reserved>551 MiB</reserved><used>1000 MiB</used>
<free>80008 MiB</free></fb_memory_usage>
<processes><process_info><pid>12</pid><type>C</type><process_name>python</process_name><used_memory>990 MiB</used_memory>
</process_info></processes></gpu></nvidia_smi_log>"""


def test_the_report_of_nvidia_smi_is_read() -> None:
    assert parse(REPORT) == Driver(
        version="580.65.06",
        cuda="13.0",
        gpus=(
            gpu(
                name="NVIDIA H100 80GB HBM3",
                total=81559 * 2**20,
                free=80008 * 2**20,
                processes=(GpuProcess(pid=12, name="python", used=990 * 2**20),),
            ),
        ),
    )
    assert parse(REPORT.replace("13.0", "N/A")).cuda is None


@pytest.mark.parametrize("text", ["", "No devices were found", "<nvidia_smi_log/>"])
def test_what_is_no_report_of_nvidia_smi_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"nvidia-smi (did not print|printed) XML"):
        parse(text)


def test_a_machine_without_shared_memory_has_none() -> None:
    none = Machine(host="h", shm=None, open_files=65536, ports=None, driver=DRIVER)
    assert only(cluster(b=facts("b", machine=none)))[3].startswith("/dev/shm 0 MiB")
