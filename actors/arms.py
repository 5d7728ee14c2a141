"""Engines that stay loaded while one run follows another: generators and teachers. Each run has new trainer ranks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import ray

from actors.cluster.placement import shared_group
from actors.launch import payload_budget, start_generators, start_teachers, start_trainers
from actors.pools.jobs import Service
from actors.pools.weighting import WeightingStage
from actors.trainer.group import TrainerGroup
from actors.trainer.supervisor import Trainers
from renio_pipeline.config import RunConfig
from renio_pipeline.preflight import Prepared
from renio_pipeline.run_dir.checkpoint_files import ResumePoint, RunState
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.stages.teacher_stage import as_one_stage

Open = Callable[[RunConfig, RunState], AbstractAsyncContextManager[Stages]]


@asynccontextmanager
async def kept_engines(config: RunConfig, prepared: Prepared, note: Callable[[str], None]) -> AsyncIterator[Open]:
    """Start the generators and teachers of ``config``; what is yielded opens the stages of one run at a time on them.

    The runs may differ in whatever concerns neither: see ``renio_pipeline.arms.arm.MAY_DIFFER``, and in the seed.
    """
    service = Service(config=config, quarantine=QuarantineLog(None, note), note=note)
    budget = payload_budget(config, prepared)
    shared = shared_group(config) if config.placement == "colocated" else None
    generators, teachers = start_generators(service, prepared, shared), start_teachers(service, prepared, budget)
    pools = {pool.name: pool for pool in (generators, *teachers.values())}
    follower = teachers[""] if config.follow else None

    def ranks(config: RunConfig) -> Callable[[ResumePoint], TrainerGroup]:
        ledger = str(Path(config.directory).absolute() / "ledger")
        return partial(start_trainers, config, prepared, ledger, shared=shared)

    trainers = Trainers(ranks(config), generators, follower, service)

    @asynccontextmanager
    async def one_run(config: RunConfig, start: RunState) -> AsyncIterator[Stages]:
        weighting = WeightingStage(config, service) if config.distils else None
        own = [] if weighting is None else [weighting.workers]
        for workers in own:
            workers.open()
        budget.reset()
        service.quarantine.ids.clear()
        for pool in pools.values():
            pool.config = config  # its seed, from which every sample has its own
        trainers.ranks_from(ranks(config))
        try:
            if shared is not None:
                await generators.workers.settled(all_of_them=True)  # engines measure the free GPU memory while they load
            await asyncio.gather(
                trainers.begin(ResumePoint(state=start)),
                *(workers.settled() for workers in own),
                *(pool.workers.settled(all_of_them=config.deterministic) for pool in pools.values()),
            )
            yield Stages(
                generators=generators,
                teachers=as_one_stage(config, teachers, prepared.retokenisers, service.quarantine.add),
                weighting=weighting,
                trainers=trainers,
                turns=trainers,
                payload=budget,
                quarantined=service.quarantine.ids,
                pools=dict(pools),
            )
        finally:
            await asyncio.gather(*(pool.cancel_all() for pool in pools.values()))
            for workers in own:
                workers.close()

    try:
        for pool in pools.values():
            pool.workers.open()
        yield one_run
    finally:
        await trainers.end()
        for pool in pools.values():
            pool.close()
        if shared is not None:
            ray.util.remove_placement_group(shared)
