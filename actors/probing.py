"""Start the engines of what trains nothing, ``renio probe`` and ``renio score``: teachers and generators, and for a probe then
in the place of the generators the trainer's forward pass."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray

from actors.cluster.checks import check_cluster, check_object_store
from actors.cluster.node_labels import check_nodes
from actors.doctor.same_versions import check_versions
from actors.launch import payload_budget, start_generators, start_teachers
from actors.pools.generators import GeneratorPool
from actors.pools.jobs import Service
from actors.run_checks import check_servers, check_this_node, inspect_on_cluster
from actors.trainer.forward_stage import ForwardStage
from renio_pipeline.config import RunConfig
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.probe.run import LONGER
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.stages.protocols import Teachers
from renio_pipeline.stages.teacher_stage import as_one_stage


def check(config: RunConfig, prepared: Prepared | None, clock: str | None = None, *, forward: bool = True) -> Prepared:
    """What a run checks, but for the pools that a probe starts: generators and the trainer are not there at a time.

    Args:
        clock: see ``prepare``.
        forward: the trainer's forward pass will be started.

    Raises:
        ConfigError: as ``actors.run_checks.check`` does.
    """
    teachers = list(config.teacher_pools.values())
    firsts = ("generator", "trainer") if forward else ("generator",)
    for first in firsts:
        check_cluster(config, ray.cluster_resources(), (first, *teachers))
    check_nodes(config, ray.nodes(), (*firsts, *teachers))
    check_this_node(config, ray.nodes())
    notes = check_versions(config, ray.nodes())
    prepared = prepared or prepare(config, partial(inspect_on_cluster, config), clock)
    check_object_store(config, prepared, ray.cluster_resources())
    return replace(prepared, notes=(*prepared.notes, *notes, *check_servers(config, prepared)))


def teachers_context(config: RunConfig, prepared: Prepared) -> int:
    """Tokens that the teachers' engines hold: responses may be ``LONGER`` than the run's, as far as the models allow it.

    A teacher that is served elsewhere was examined for the run's lengths alone.
    """
    if any(teacher.type == "http" for teacher in config.all_teachers.values()):
        return prepared.context
    named = {config.teacher_key(name, "model"): config.teacher_model(name) for name in config.all_teachers}
    most = min(inspect_on_cluster(config, model, key).context for key, model in named.items())
    return max(prepared.context, min(most, prepared.context + (LONGER - 1) * config.max_response_tokens))


@dataclass(kw_only=True)
class Engines:
    generators: GeneratorPool
    teachers: Teachers
    budget: PayloadBudget
    forward: ForwardStage | None

    def table(self, payload: Any) -> Any:
        """What a teacher left in the object store, by the reference that came with its scores."""
        return ray.get(payload)

    async def generated(self) -> None:
        """The student has written everything: end its generators, and start the forward pass."""
        self.generators.close()
        if self.forward is not None:
            self.forward.workers.open()
            await self.forward.workers.settled()


@asynccontextmanager
async def engines(
    config: RunConfig, prepared: Prepared, *, context: int, forward: bool, note: Callable[[str], None]
) -> AsyncIterator[Engines]:
    """Start generators and teachers together, and wait until both can serve. All actors end with the block.

    Args:
        config: the result of ``renio_pipeline.probe.setting.probing``, or of ``recording`` there.
        context: of the teachers' engines, see ``teachers_context``.
        forward: the losses are wanted too.
    """
    service = Service(config=config, quarantine=QuarantineLog(None, note), note=note)
    budget = payload_budget(config, prepared)
    generators = start_generators(service, prepared)
    pools = start_teachers(service, replace(prepared, context=context), budget)
    stage = ForwardStage(service, prepared.vocab_size) if forward else None
    try:
        for pool in (generators, *pools.values()):
            pool.workers.open()
        for pool in (generators, *pools.values()):
            await pool.workers.settled()
        teachers = as_one_stage(config, pools, prepared.retokenisers, service.quarantine.add)
        assert teachers is not None, "``renio_pipeline.probe.setting`` refuses a configuration without a teacher"
        yield Engines(generators=generators, teachers=teachers, budget=budget, forward=stage)
    finally:
        for pool in (generators, *pools.values()):
            pool.close()
        if stage is not None:
            stage.workers.close()
