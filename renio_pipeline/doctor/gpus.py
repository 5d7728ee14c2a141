"""GPUs, driver and CUDA of a node: what exists, what Ray counts, what torch can use."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.version import Version

from renio_pipeline.doctor.facts import Driver, Gpu, Machine, Node, NodeFacts, Software
from renio_pipeline.doctor.findings import Finding, Level, size

NOSET = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"
VISIBLE = "CUDA_VISIBLE_DEVICES"
FREE_SHARE = 0.95  # if less of a GPU's memory is free, something else is using it


def judge(node: Node, facts: NodeFacts) -> Iterator[Finding]:
    driver = facts.machine.driver
    if driver is None and not node.gpus:
        where = "no pool that uses GPUs is placed here" if not node.wants_gpus else "none"
        yield Finding(node=node.name, check="gpus", level="ok", seen=f"no GPUs: {where}")
    elif driver is None:
        yield Finding(
            node=node.name,
            check="gpus",
            level="fault",
            seen=f"Ray counts {node.gpus:g} GPUs, but {facts.machine.driver_error or 'there is no nvidia-smi'}",
            advice="install the NVIDIA driver, or give the container its tools (NVIDIA_DRIVER_CAPABILITIES=compute,utility)",
        )
    else:
        yield from _count(node, driver, facts.machine)
        if node.wants_gpus:
            yield from (_use(node, i, gpu) for i, gpu in enumerate(driver.gpus) if gpu.free < FREE_SHARE * gpu.total)
            yield cuda(node, driver, facts.software)


def _count(node: Node, driver: Driver, machine: Machine) -> Iterator[Finding]:
    kinds = ", ".join(dict.fromkeys(f"{gpu.name} {size(gpu.total)}" for gpu in driver.gpus))
    there = sum(gpu.instances or 1 for gpu in driver.gpus)
    instances = f", in {there} MIG instances" if any(gpu.instances for gpu in driver.gpus) else ""
    seen = f"{len(driver.gpus)} GPUs ({kinds}){instances}, Ray counts {node.gpus:g}"
    visible = machine.environment.get(VISIBLE)
    restricted = f"; {VISIBLE}={visible}" if visible is not None else ""
    if machine.environment.get(NOSET, "") not in ("", "0", "false"):
        yield Finding(
            node=node.name,
            check="gpus",
            level="fault",
            seen=f"{NOSET} is set: every engine and trainer rank would use GPU 0",
            advice=f"unset {NOSET} and restart Ray on this node",
        )
    if node.gpus > there:
        yield Finding(
            node=node.name,
            check="gpus",
            level="fault",
            seen=f"{seen}{restricted}",
            advice="start Ray with --num-gpus equal to the number of GPUs of this node, or leave the option out",
        )
    elif node.gpus < there:
        yield Finding(
            node=node.name,
            check="gpus",
            level="warning",
            seen=f"{seen}{restricted}: the others stay idle",
            advice=f"to use all of them, start Ray without --num-gpus and {VISIBLE}",
        )
    else:
        yield Finding(node=node.name, check="gpus", level="ok", seen=seen)


def _use(node: Node, index: int, gpu: Gpu) -> Finding:
    users = ", ".join(f"{p.name} (process {p.pid})" for p in gpu.processes) or "a process outside this container"
    return Finding(
        node=node.name,
        check="gpu_memory",
        level="warning",
        seen=f"GPU {index}: {size(gpu.free)} of {size(gpu.total)} are free; used by {users}",
        advice="end those processes before a run, or lower gpu_memory_utilization in generator.engine and teacher.engine",
    )


def cuda(node: Node, driver: Driver, software: Software) -> Finding:
    """Whether the driver is new enough for the CUDA version that torch was built for."""
    seen = f"driver {driver.version} for CUDA {driver.cuda or 'unknown'}, torch for CUDA {software.torch_cuda or 'none'}"
    if software.torch_cuda is None:
        if "torch" not in software.packages:
            seen = f"driver {driver.version}, and no torch"
        advice = "reinstall torch in a CUDA build; one whose version ends in +cpu cannot use GPUs"
        return Finding(node=node.name, check="cuda", level="fault", seen=seen, advice=advice)
    if driver.cuda is None:
        advice = "compare them by hand: nvidia-smi says what the driver supports"
        return Finding(node=node.name, check="cuda", level="warning", seen=seen, advice=advice)
    has, wants = Version(driver.cuda), Version(software.torch_cuda)
    if has < wants:
        advice = f"update the NVIDIA driver to one for CUDA {wants} or later, or install torch for CUDA {has}"
        if has.major == wants.major:  # compatible, except for kernels that the driver itself must compile
            seen += ": kernels that are compiled just in time may fail"
        level: Level = "fault" if has.major < wants.major else "warning"
        return Finding(node=node.name, check="cuda", level=level, seen=seen, advice=advice)
    return Finding(node=node.name, check="cuda", level="ok", seen=seen)
