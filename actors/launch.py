"""Start a run's actors, and hand the step loop its stages."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray

from actors.cluster.placement import actor_options, create_placement_group, half_gpu, in_bundle, shared_group
from actors.engines.specs import Sizes
from actors.pools.generators import GeneratorPool
from actors.pools.jobs import Service
from actors.pools.kinds import generator_kind, teacher_kind
from actors.pools.probe import Probe
from actors.pools.served_teachers import ServedTeacherPool
from actors.pools.teachers import TeacherPool
from actors.pools.weighting import WeightingStage
from actors.pools.worker import CONTROL
from actors.trainer.group import TrainerGroup
from actors.trainer.messages import RankSpec, Restore
from actors.trainer.rank import TrainerRank
from actors.trainer.supervisor import Trainers
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.sections import HIDDEN
from renio_pipeline.data.other_tokenizers import ROOM
from renio_pipeline.models import info
from renio_pipeline.models.adapters import Adapter
from renio_pipeline.preflight import Prepared
from renio_pipeline.run_dir.analyses import FILE as ANALYSES
from renio_pipeline.run_dir.analyses import AnalysisLog
from renio_pipeline.run_dir.checkpoint_files import ResumePoint
from renio_pipeline.run_dir.fence import NO_FENCE, Fence
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.stages.engine_limits import record_limits
from renio_pipeline.stages.off_policy import with_off_policy
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.stages.protocols import NoGenerators, Stages
from renio_pipeline.stages.reason_first import with_analyses
from renio_pipeline.stages.recorded import recorded_pools, with_recorded
from renio_pipeline.stages.teacher_stage import as_one_stage
from renio_pipeline.types import FIRST_VERSION


def start_generators(service: Service, prepared: Sizes, shared: Any = None, adapter: Adapter | None = None) -> GeneratorPool:
    config = service.config
    return GeneratorPool(generator_kind(config, prepared, shared, adapter), config.pools.generator.replicas, service)


def start_teachers(service: Service, prepared: Prepared, budget: PayloadBudget) -> dict[str, TeacherPool]:
    """A pool for each teacher, by the name that routes rows to it."""
    config = service.config
    pools: dict[str, TeacherPool] = {}
    for name, pool in config.teacher_pools.items():
        probe = Probe(prepared, config, name)
        kind = replace(teacher_kind(config, prepared, name), check=probe.check)
        # A pool counts the tokens that its teacher reads; ``prepared`` counts the student's, with room for the others.
        room = ROOM if name in config.own_tokenizers else 1
        made = ServedTeacherPool if config.all_teachers[name].type == "http" else TeacherPool
        pools[name] = made(
            kind,
            config.pool(pool).replicas,
            service,
            budget,
            prepared.payload_token_bytes[name] // room,
            vocab_size=prepared.sizes_of(name).vocab_size,
            teacher=name,
        )
    return pools


def start_trainers(
    config: RunConfig,
    prepared: Prepared,
    ledger: str | None = None,
    point: ResumePoint | None = None,
    shared: Any = None,
    fence: Fence = NO_FENCE,
) -> TrainerGroup:
    """Start the trainer ranks on as few nodes as possible. ``setup`` then loads their model or ``point``'s checkpoint.

    Args:
        ledger: the folder of the ranks' ledgers. None: none is written.
        shared: the group of ``shared_group``. None: the ranks have their own placement group.
        fence: of the run's directory; each rank checks it before it writes there.
    """
    point = point or ResumePoint()
    restore = _restore(config, point)
    heads: dict[str, tuple[str, str]] = {}
    if config.objective.payload == HIDDEN:
        heads = {n: (info.resolve(config.teacher_model(n)), t.dtype) for n, t in config.all_teachers.items()}
    spec = RankSpec(
        model=info.resolve(config.student),
        trainer=config.trainer,
        steps=config.steps,
        passes=config.passes,
        seed=config.seed,
        on_gpu=bool(config.pools.trainer.gpus),
        heads=heads,
        end_tokens=prepared.end_tokens,
        shared_tokens=prepared.shared_tokens,
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
        fence=fence,
    )
    options = actor_options(config, "trainer")
    world_size = config.pools.trainer.replicas
    group, taken = (create_placement_group([options] * world_size), options) if shared is None else (shared, half_gpu(options))
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
    config: RunConfig,
    prepared: Prepared,
    point: ResumePoint | None = None,
    note: Callable[[str], None] = lambda text: None,
    fence: Fence = NO_FENCE,
) -> AsyncIterator[Stages]:
    """Start all pools together, resume from ``point``, and wait until each pool can serve. All actors end with the block.

    ``fence``: of the run's directory, for everything that the actors and this function write there.
    """
    point = point or ResumePoint()
    directory = config.directory.absolute()
    quarantine = QuarantineLog(directory / "samples" / "rejected.jsonl", note, fence)
    service = Service(config=config, quarantine=quarantine, note=note)
    budget = payload_budget(config, prepared)
    shared = shared_group(config) if config.placement == "colocated" else None
    generators = start_generators(service, prepared, shared) if config.generates else None
    teachers = start_teachers(service, prepared, budget)
    engines = [*([] if generators is None else [generators]), *teachers.values()]
    weighting = WeightingStage(config, service, point.state.weighting) if config.distils else None
    workers = [pool.workers for pool in engines] + ([] if weighting is None else [weighting.workers])
    scoring = {**teachers, **recorded_pools(config, prepared.recordings, ray.put, budget)}
    follower = teachers[""] if config.follow else None
    ranks_at = partial(start_trainers, config, prepared, str(directory / "ledger"), shared=shared, fence=fence)
    trainers = Trainers(ranks_at, generators, follower, service)
    pools = {pool.name: pool for pool in engines}

    async def begin() -> None:
        if shared is not None and generators is not None:
            await generators.workers.settled(all_of_them=True)  # engines measure the free GPU memory while they load
        await trainers.begin(point, check=partial(_all_see, directory))

    try:
        for each in workers:
            each.open()
        await asyncio.gather(begin(), *(each.settled(all_of_them=config.deterministic) for each in workers))
        fence.check()
        record_limits(directory, {pool.name: found for pool in pools.values() if (found := pool.limits) is not None})
        made = Stages(
            generators=generators or NoGenerators(),
            teachers=as_one_stage(config, scoring, prepared.retokenisers, quarantine.add),
            weighting=weighting,
            trainers=trainers,
            turns=trainers,
            payload=budget,
            quarantined=service.quarantine.ids,
            pools=dict(pools),
        )
        off_policy = with_off_policy(
            with_recorded(made, config, prepared.recordings),
            config,
            solutions=prepared.solutions,
            end_tokens=prepared.end_tokens,
            quarantine=quarantine.add,
        )
        yield with_analyses(
            off_policy,
            config,
            prepared.analyses,
            AnalysisLog(directory / ANALYSES, fence),
            version=lambda: trainers.to_teachers.version or FIRST_VERSION,
            quarantine=quarantine.add,
            note=note,
        )
    finally:
        await trainers.end()
        for pool in pools.values():
            pool.close()
        if weighting is not None:
            weighting.workers.close()
        if shared is not None:
            ray.util.remove_placement_group(shared)


@asynccontextmanager
async def generators(config: RunConfig, prepared: Sizes, adapter: Adapter | None = None) -> AsyncIterator[GeneratorPool]:
    """Only the generator pool, with the student's weights as they are on disk, and an adapter's factors."""
    service = Service(config=config, quarantine=QuarantineLog(None, lambda text: None))
    pool = start_generators(service, prepared, adapter=adapter)
    try:
        pool.workers.open()
        await pool.workers.settled()
        yield pool
    finally:
        pool.close()


def payload_budget(config: RunConfig, prepared: Prepared) -> PayloadBudget:
    sample_bytes = config.max_response_tokens * max(prepared.payload_token_bytes.values(), default=0)
    return PayloadBudget(config.payload.max_bytes, config.batch_size * config.teachers_of_a_sample, sample_bytes)


async def _all_see(folder: Path, trainers: TrainerGroup) -> None:
    """Raises ConfigError if a trainer rank does not see the driver's run directory."""
    probe = folder / ".probe"
    probe.write_text(socket.gethostname(), encoding="utf-8")
    try:
        seen = await asyncio.gather(*(rank.sees.remote(str(probe)) for rank in trainers.ranks))
    finally:
        probe.unlink()
    blind = [node for node, sees in seen if not sees]
    if blind:
        raise ConfigError(f"run_dir: {folder} is not visible on {', '.join(sorted(set(blind)))}; use a shared file system")
