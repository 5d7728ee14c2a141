"""Connect to Ray, start a run's actors, and hand the step loop its stages."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray

from actors.cluster import reaper
from actors.cluster.checks import check_cluster, check_object_store
from actors.cluster.node_labels import check_nodes
from actors.cluster.placement import GroupLease, actor_options, ask_for, half, in_bundle, lease, shared_group
from actors.control import mailbox
from actors.control.mailbox import NAMESPACE
from actors.doctor.same_versions import check_versions
from actors.engines.generator import Generator
from actors.engines.options import check_engine_options
from actors.engines.specs import Sizes, generator_spec, scorer_spec, teacher_spec
from actors.engines.torch_teacher import TorchTeacher
from actors.engines.vllm_hidden_teacher import HiddenTeacher
from actors.engines.vllm_teacher import Teacher
from actors.pools.base import Service
from actors.pools.generators import GeneratorPool
from actors.pools.probe import Probe
from actors.pools.teachers import TeacherPool
from actors.pools.weighting import WeightingStage
from actors.pools.worker import CONTROL, Kind
from actors.trainer.group import TrainerGroup
from actors.trainer.messages import RankSpec, Restore
from actors.trainer.rank import TrainerRank
from actors.trainer.supervisor import Trainers
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.loop.shutdown import leave
from renio_pipeline.models import info
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.run_dir.rejected import RejectedLog
from renio_pipeline.run_dir.resume import ResumePoint
from renio_pipeline.stages.engine_limits import record_limits
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.stages.teacher_routing import RoutedTeachers


@dataclass(frozen=True)
class Cluster:
    """The Ray cluster that a run uses."""

    own: bool  # started by this run, and ends with it
    host: str  # this node's address, by which others reach it


@contextmanager
def cluster(address: str | None) -> Iterator[Cluster]:
    """Connect to ``address`` (or RAY_ADDRESS), or start a Ray of one's own; leave nothing behind."""
    address = address or os.environ.get("RAY_ADDRESS")
    own = not address
    options: dict[str, Any] = {"include_dashboard": False} if own else {}
    watch = reaper.start() if own else None
    ray.init(
        address="local" if own else address,
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level=logging.ERROR,
        **options,
    )
    # Ray has just put a handler of its own in place, which aborts: unwind instead, so that Ray is shut down.
    signal.signal(signal.SIGTERM, leave)
    try:
        yield Cluster(own=own, host=ray.util.get_node_ip_address())
    finally:
        ray.shutdown()
        if watch is not None:
            watch.communicate()  # closes its input: it ends what Ray has left, and itself


def run_directory(config: RunConfig, found: Cluster) -> RunConfig:
    """Settle where the run is written.

    On a cluster that was running already, processes run in copies of the working directory that may be evicted, so a
    relative folder would be lost there.
    """
    if found.own:
        return config
    if config.run_dir is None:
        return config.model_copy(update={"run_dir": str(Path.home() / "renio-runs" / config.name)})
    if not Path(config.run_dir).is_absolute():
        raise ConfigError(f"run_dir: {config.run_dir!r} must be an absolute path that every node sees, on a running cluster")
    return config


def prepare_locally(config: RunConfig) -> Prepared | None:
    """What can be checked before even Ray starts: all but models with hub names. Raises ConfigError."""
    check_engine_options(config)
    names = [config.student, *map(config.teacher_model, config.all_teachers)]
    return prepare(config) if all(map(info.is_local, names)) else None


def check(config: RunConfig, prepared: Prepared | None) -> Prepared:
    """What needs the cluster to check, before any engine starts. Raises ConfigError."""
    check_cluster(config, ray.cluster_resources())
    check_nodes(config, ray.nodes())
    notes = check_versions(config, ray.nodes())
    prepared = prepared or prepare(config, partial(inspect_on_cluster, config))
    check_object_store(config, prepared, ray.cluster_resources())
    return replace(prepared, notes=(*prepared.notes, *notes))


def check_generators(config: RunConfig) -> None:
    """Raises ConfigError if the cluster has no room for a generator, where nothing else is wanted."""
    check_cluster(config, ray.cluster_resources(), ("generator",))
    check_nodes(config, ray.nodes(), ("generator",))


def inspect_on_cluster(config: RunConfig, name: str, key: str) -> info.ModelInfo:
    """Read a folder here; a hub name on a node that has what the model's pool needs, where it will be loaded."""
    if info.is_local(name):
        return info.inspect(name, key)
    owners = {config.teacher_key(teacher, "model"): pool for teacher, pool in config.teacher_pools.items()}
    options = actor_options(config, owners.get(key, "generator"))
    task = ray.remote(info.inspect).options(**options)
    try:
        found: info.ModelInfo = ray.get(task.remote(name, key))
    except ray.exceptions.RayTaskError as error:
        raise ConfigError(str(error.cause)) from None
    return found


def claim(config: RunConfig) -> Any:
    """The run's named actor. Raises ConfigError if a driver of this name is live."""
    try:
        return mailbox.start(config.name, str(config.directory.absolute()))
    except ValueError:
        raise ConfigError(f"name: a run {config.name!r} is live on this cluster; stop it, or choose another name") from None


def generator_kind(config: RunConfig, prepared: Sizes, shared: Any = None) -> Kind:
    """What the workers of the generator pool are. ``shared``: see ``shared_group``."""
    spec = generator_spec(config, prepared)
    options = actor_options(config, "generator", uses_vllm=True, separate_process=spec.separate_process)
    actor = ray.remote(Generator)

    def beside_rank(slot: int) -> GroupLease:
        return GroupLease(in_bundle(actor, shared, slot, half(options)).remote(spec), shared, slot, owns_group=False)

    start = (lambda slot: lease(actor, (spec,), options)) if shared is None else beside_rank
    return Kind(name="generator", start=start, engine=True)


def teacher_kind(config: RunConfig, prepared: Prepared, name: str = "") -> Kind:
    """What the workers of a teacher's pool are."""
    pool = config.teacher_pools[name]
    if config.all_teachers[name].type == "torch":
        options = actor_options(config, pool)
        torch_teacher = ray.remote(concurrency_groups={CONTROL: 1})(TorchTeacher)
        spec: Any = scorer_spec(config, prepared, name)
        return Kind(name=pool, start=lambda slot: lease(torch_teacher, (spec,), options), group=CONTROL)
    spec = teacher_spec(config, prepared, name)
    options = actor_options(config, pool, uses_vllm=True, separate_process=spec.separate_process)
    kind = HiddenTeacher if config.payload_kind == "hidden" else Teacher
    actor = ray.remote(kind)
    return Kind(name=pool, start=lambda slot: lease(actor, (spec, name), options), engine=True)


def start_generators(service: Service, prepared: Sizes, shared: Any = None) -> GeneratorPool:
    config = service.config
    return GeneratorPool(generator_kind(config, prepared, shared), config.pools.generator.replicas, service)


def start_teachers(service: Service, prepared: Prepared, budget: PayloadBudget) -> dict[str, TeacherPool]:
    """A pool for each teacher, by the name that rows are routed by."""
    config = service.config
    pools = {}
    for name, pool in config.teacher_pools.items():
        probe = Probe(prepared, config, name)
        kind = replace(teacher_kind(config, prepared, name), check=probe.check)
        pools[name] = TeacherPool(
            kind,
            config.pool(pool).replicas,
            service,
            budget,
            prepared.payload_token_bytes[name],
            vocab_size=prepared.vocab_size,
            teacher=name,
        )
    return pools


def start_trainers(
    config: RunConfig, prepared: Prepared, ledger: str | None = None, point: ResumePoint | None = None, shared: Any = None
) -> TrainerGroup:
    """The ranks, packed on as few nodes as can be. Their models, or ``point``'s checkpoint, load with ``setup``.

    ``shared``: see ``shared_group``; else they have a group of their own.
    """
    point = point or ResumePoint()
    restore = _restore(config, point)
    heads: dict[str, tuple[str, str]] = {}
    if config.payload_kind == "hidden":
        heads = {n: (info.resolve(config.teacher_model(n)), t.dtype) for n, t in config.all_teachers.items()}
    spec = RankSpec(
        model=info.resolve(config.student),
        trainer=config.trainer,
        steps=config.steps,
        seed=config.seed,
        on_gpu=bool(config.pools.trainer.gpus),
        heads=heads,
        follow=config.follow,
        teacher_dtype=config.teacher.dtype,
        adapter_sync=config.sync.lora == "adapter",
        merged_checkpoint=config.trainer.lora is None or config.checkpoint.merged,
        restore=restore,
        incarnation=point.state.version.incarnation,
        transfer_seconds=config.faults.transfer_seconds,
        collective_seconds=config.faults.collective_seconds,
        packed_bytes=config.sync.packed_bytes,
        kept_heads=config.max_staleness + 2,
    )
    options = actor_options(config, "trainer")
    world_size = config.pools.trainer.replicas
    group, taken = (ask_for([options] * world_size), options) if shared is None else (shared, half(options))
    actor = ray.remote(concurrency_groups={CONTROL: 1})(TrainerRank)
    ranks = [in_bundle(actor, group, i, taken).remote(spec, i, world_size) for i in range(world_size)]
    return TrainerGroup(ranks, config, prepared.vocab_size, ledger, restore, group, owns_placement=shared is None)


def _restore(config: RunConfig, point: ResumePoint) -> Restore | None:
    if point.folder is None:
        return None
    same = point.state.world_size == config.pools.trainer.replicas
    return Restore(folder=str(point.folder), same_shape=same, universal=not same and config.trainer.zero_stage > 0)


@asynccontextmanager
async def stages(
    config: RunConfig, prepared: Prepared, point: ResumePoint | None = None, note: Callable[[str], None] = lambda text: None
) -> AsyncIterator[Stages]:
    """Start every pool, all at once, and wait until each can serve; go on from ``point``. At the end all of them end."""
    point = point or ResumePoint()
    directory = config.directory.absolute()
    service = Service(config=config, rejected=RejectedLog(directory / "samples" / "rejected.jsonl", note), note=note)
    budget = payload_budget(config, prepared)
    shared = shared_group(config) if config.placement == "colocated" else None
    generators, teachers = start_generators(service, prepared, shared), start_teachers(service, prepared, budget)
    weighting = WeightingStage(config, service, point.state.running_mean)
    follower = teachers[""] if config.follow else None
    ranks_at = partial(start_trainers, config, prepared, str(directory / "ledger"), shared=shared)
    trainers = Trainers(ranks_at, generators, follower, service)
    pools = {pool.name: pool for pool in (generators, *teachers.values())}

    async def begin() -> None:
        if shared is not None:
            await generators.workers.settled(all_of_them=True)  # engines measure the memory that is free while they load
        await trainers.begin(point, check=partial(_all_see, directory))

    try:
        for workers in (*(pool.workers for pool in pools.values()), weighting.workers):
            workers.open()
        await asyncio.gather(
            begin(),
            weighting.workers.settled(),
            *(pool.workers.settled(all_of_them=config.deterministic) for pool in pools.values()),
        )
        record_limits(directory, {pool.name: found for pool in pools.values() if (found := pool.limits) is not None})
        yield Stages(
            generators=generators,
            teachers=RoutedTeachers(teachers) if config.teachers else teachers[""],
            weighting=weighting,
            trainers=trainers,
            turns=trainers,
            payload=budget,
            rejected=service.rejected.ids,
            pools=dict(pools),
        )
    finally:
        await trainers.end()
        for pool in pools.values():
            pool.close()
        weighting.workers.close()
        if shared is not None:
            ray.util.remove_placement_group(shared)


@asynccontextmanager
async def generators(config: RunConfig, prepared: Sizes) -> AsyncIterator[GeneratorPool]:
    """The generator pool alone, with the student's own weights."""
    pool = start_generators(Service(config=config, rejected=RejectedLog(None, lambda text: None)), prepared)
    try:
        pool.workers.open()
        await pool.workers.settled()
        yield pool
    finally:
        pool.close()


def payload_budget(config: RunConfig, prepared: Prepared) -> PayloadBudget:
    sample_bytes = config.max_response_tokens * max(prepared.payload_token_bytes.values())
    return PayloadBudget(config.payload.max_bytes, config.batch_size, sample_bytes)


async def _all_see(folder: Path, trainers: TrainerGroup) -> None:
    """Raises ConfigError if a trainer rank does not see the driver's run directory."""
    probe = folder / ".probe"
    probe.write_text(socket.gethostname())
    try:
        seen = await asyncio.gather(*(rank.sees.remote(str(probe)) for rank in trainers.ranks))
    finally:
        probe.unlink()
    blind = [node for node, sees in seen if not sees]
    if blind:
        raise ConfigError(f"run_dir: {folder} is not visible on {', '.join(sorted(set(blind)))}; use a shared file system")
