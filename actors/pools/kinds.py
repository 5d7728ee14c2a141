"""What the workers of each pool are: the actor class, its options and what it is built from."""

from __future__ import annotations

from typing import Any

import ray

from actors.cluster.placement import GroupLease, actor_options, half_gpu, in_bundle, start_in_group
from actors.engines.generator import Generator
from actors.engines.http_teacher import HttpTeacher, served_spec
from actors.engines.specs import Sizes, generator_spec, scorer_spec, teacher_spec
from actors.engines.torch_teacher import TorchTeacher
from actors.engines.vllm_hidden_teacher import HiddenTeacher
from actors.engines.vllm_teacher import Teacher
from actors.pools.worker import CONTROL, Kind
from renio_pipeline.config import RunConfig
from renio_pipeline.config.sections import HIDDEN
from renio_pipeline.models.adapters import Adapter
from renio_pipeline.preflight import Prepared


def generator_kind(config: RunConfig, prepared: Sizes, shared: Any = None, adapter: Adapter | None = None) -> Kind:
    """The workers of the generator pool.

    Args:
        shared: the group of ``shared_group``, if generators share the ranks' GPUs.
        adapter: added to the model that is on disk; None: the run's own, if it has one.
    """
    spec = generator_spec(config, prepared, adapter)
    options = actor_options(config, "generator", uses_vllm=True, separate_process=spec.separate_process)
    actor = ray.remote(Generator)

    def beside_rank(slot: int) -> GroupLease:
        return GroupLease(in_bundle(actor, shared, slot, half_gpu(options)).remote(spec), shared, slot, owns_group=False)

    start = (lambda slot: start_in_group(actor, (spec,), options)) if shared is None else beside_rank
    return Kind(name="generator", start=start, engine=True)


def teacher_kind(config: RunConfig, prepared: Prepared, name: str = "") -> Kind:
    """The workers of a teacher's pool."""
    pool = config.teacher_pools[name]
    if config.all_teachers[name].type == "torch":
        options = actor_options(config, pool)
        torch_teacher = ray.remote(concurrency_groups={CONTROL: 1})(TorchTeacher)
        spec: Any = scorer_spec(config, prepared, name)
        return Kind(name=pool, start=lambda slot: start_in_group(torch_teacher, (spec,), options), group=CONTROL)
    if config.all_teachers[name].type == "http":
        http_teacher, served = ray.remote(HttpTeacher), served_spec(config, prepared, name)
        calls = 2 * served.concurrency * len(served.urls) + 100  # scores and texts, and the pool's own questions beside them
        options = actor_options(config, pool) | {"max_concurrency": calls}
        return Kind(name=pool, start=lambda slot: start_in_group(http_teacher, (served,), options), engine=True)
    spec = teacher_spec(config, prepared, name)
    options = actor_options(config, pool, uses_vllm=True, separate_process=spec.separate_process)
    kind = HiddenTeacher if config.objective.payload == HIDDEN else Teacher
    actor = ray.remote(kind)
    return Kind(name=pool, start=lambda slot: start_in_group(actor, (spec, name), options), engine=True)
