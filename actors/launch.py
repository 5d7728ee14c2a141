"""Connect to Ray, start a run's actors, and hand the step loop its stages."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray

from actors import reaper
from actors.control import NAMESPACE, Control
from actors.deepspeed_engine import RankSpec
from actors.engine_options import check_engine_options
from actors.generation import Generator
from actors.hidden_teacher import HiddenTeacher
from actors.placement import (
    actor_options,
    check_cluster,
    check_object_store,
    generator_spec,
    scorer_spec,
    teacher_spec,
)
from actors.pool import GeneratorPool, TeacherPool
from actors.rank_checkpoint import Restore
from actors.teacher import Teacher
from actors.torch_teacher import TorchTeacher
from actors.trainer_group import TrainerGroup
from actors.training import CONTROL, TrainerRank
from renio_pipeline import models
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.pipeline import Stages
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.resume import ResumePoint
from renio_pipeline.routing import RoutedTeachers
from renio_pipeline.stopping import leave
from renio_pipeline.weigher import Weighed, Weigher


@dataclass(frozen=True)
class Cluster:
    """The Ray cluster that a run uses."""

    own: bool  # started by this run, and ends with it


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
        yield Cluster(own=own)
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
    return prepare(config) if all(map(models.is_local, names)) else None


def check(config: RunConfig, prepared: Prepared | None, pools: Sequence[str] | None = None) -> Prepared:
    """What needs the cluster to check, before any engine of ``pools`` (None: all) starts. Raises ConfigError."""
    check_cluster(config, ray.cluster_resources(), pools)
    prepared = prepared or prepare(config, partial(_inspect_on_cluster, config))
    check_object_store(config, prepared, ray.cluster_resources())
    return prepared


def _inspect_on_cluster(config: RunConfig, name: str, key: str) -> models.ModelInfo:
    """Read a folder here; a hub name on a node that has what the model's pool needs, where it will be loaded."""
    if models.is_local(name):
        return models.inspect(name, key)
    owners = {config.teacher_key(teacher, "model"): pool for teacher, pool in config.teacher_pools.items()}
    options = actor_options(config, owners.get(key, "generator"))
    task = ray.remote(models.inspect).options(**options)
    try:
        found: models.ModelInfo = ray.get(task.remote(name, key))
    except ray.exceptions.RayTaskError as error:
        raise ConfigError(str(error.cause)) from None
    return found


def claim(config: RunConfig) -> Any:
    """The run's named actor. Raises ConfigError if a driver of this name is live."""
    try:
        return ray.remote(Control).options(name=config.name, namespace=NAMESPACE, num_cpus=0).remote()
    except ValueError:
        raise ConfigError(f"name: a run {config.name!r} is live on this cluster; stop it, or choose another name") from None


def start_generators(config: RunConfig, prepared: Prepared) -> GeneratorPool:
    spec = generator_spec(config, prepared)
    options = actor_options(config, "generator", uses_vllm=True, separate_process=spec.separate_process)
    actor = ray.remote(Generator).options(max_concurrency=1000, **options)
    return GeneratorPool([actor.remote(spec) for _ in range(config.pools.generator.replicas)], config)


def start_teachers(config: RunConfig, prepared: Prepared) -> TeacherPool | RoutedTeachers:
    pools = {name: _start_teacher(config, prepared, name) for name in config.all_teachers}
    return RoutedTeachers(pools) if config.teachers else pools[""]


def _start_teacher(config: RunConfig, prepared: Prepared, name: str) -> TeacherPool:
    pool = config.teacher_pools[name]
    if config.all_teachers[name].type == "torch":
        torch_teacher = ray.remote(TorchTeacher).options(**actor_options(config, pool))
        start = partial(torch_teacher.remote, scorer_spec(config, prepared, name))
    else:
        spec = teacher_spec(config, prepared, name)
        options = actor_options(config, pool, uses_vllm=True, separate_process=spec.separate_process)
        kind = HiddenTeacher if config.payload_kind == "hidden" else Teacher
        start = partial(ray.remote(kind).options(max_concurrency=1000, **options).remote, spec, name)
    replicas = [start() for _ in range(config.pool(pool).replicas)]
    return TeacherPool(replicas, config, prepared.payload_token_bytes[name], vocab_size=prepared.vocab_size, name=name)


def start_trainers(
    config: RunConfig, prepared: Prepared, ledger: str | None = None, point: ResumePoint | None = None
) -> TrainerGroup:
    """The ranks, packed on as few nodes as can be. Their models, or ``point``'s checkpoint, load with ``setup``."""
    point = point or ResumePoint()
    restore = _restore(config, point)
    heads: dict[str, tuple[str, str]] = {}
    if config.payload_kind == "hidden":
        heads = {n: (models.resolve(config.teacher_model(n)), t.dtype) for n, t in config.all_teachers.items()}
    spec = RankSpec(
        model=models.resolve(config.student), trainer=config.trainer, steps=config.steps, seed=config.seed,
        on_gpu=bool(config.pools.trainer.gpus), heads=heads, follow=config.follow,
        teacher_dtype=config.teacher.dtype, adapter_sync=config.sync.lora == "adapter",
        merged_checkpoint=config.trainer.lora is None or config.checkpoint.merged,
        restore=restore, incarnation=point.state.version.incarnation,
    )  # fmt: skip
    options = actor_options(config, "trainer")
    world_size = config.pools.trainer.replicas
    bundle = {"CPU": options["num_cpus"], "GPU": options["num_gpus"]}
    group = ray.util.placement_group([{k: v for k, v in bundle.items() if v}] * world_size, strategy="PACK")
    strategy = [
        ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i)
        for i in range(world_size)
    ]
    actor = ray.remote(concurrency_groups={CONTROL: 1})(TrainerRank)
    ranks = [actor.options(scheduling_strategy=strategy[i], **options).remote(spec, i, world_size) for i in range(world_size)]
    return TrainerGroup(ranks, config, prepared.vocab_size, ledger, restore)


def _restore(config: RunConfig, point: ResumePoint) -> Restore | None:
    if point.folder is None:
        return None
    same = point.state.world_size == config.pools.trainer.replicas
    return Restore(folder=str(point.folder), same_shape=same, universal=not same and config.trainer.zero_stage > 0)


class WeightingStage:
    """The weighting actor as the loop sees it."""

    def __init__(self, config: RunConfig, running_mean: float | None = None) -> None:
        actor = ray.remote(Weigher).options(**actor_options(config, "weighting"))
        self.actor = actor.remote(config.weighting, running_mean)

    async def weigh(self, student: list[np.ndarray], teacher: list[np.ndarray]) -> Weighed:
        weighed: Weighed = await self.actor.weigh.remote(student, teacher)
        return weighed

    async def running_mean(self) -> float | None:
        mean: float | None = await self.actor.running_mean.remote()
        return mean


async def start(config: RunConfig, prepared: Prepared, point: ResumePoint | None = None) -> Stages:
    """Start every pool, all at once, and wait until each can serve; go on from ``point``."""
    ledger = str((config.directory / "ledger").absolute())
    generators, teachers = start_generators(config, prepared), start_teachers(config, prepared)
    weighting = WeightingStage(config, point.state.running_mean if point else None)
    trainers = start_trainers(config, prepared, ledger, point)
    await _all_see(config.directory.absolute(), trainers)
    await asyncio.gather(
        trainers.setup(), weighting.actor.ready.remote(),
        *(replica.ready.remote() for replica in [*generators.replicas, *teachers.replicas]),
    )  # fmt: skip
    await trainers.connect(generators.replicas)
    if config.follow:
        await trainers.connect_teacher(teachers.replicas)
    return Stages(generators=generators, teachers=teachers, weighting=weighting, trainers=trainers)


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
