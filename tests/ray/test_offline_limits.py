"""The limits of an engine that is built as on an H100 reach the pools that fill it and the plan that counts on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.engines.generator import Generator
from actors.engines.specs import generator_spec
from actors.pools.generators import GeneratorPool
from actors.pools.jobs import Service
from actors.pools.worker import Kind
from renio_pipeline.planning.devices import DEVICES
from renio_pipeline.planning.limits import Recorded, engine_limits
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.stages.engine_limits import EngineLimits, Ready, batch_tokens, read_limits, record_limits
from tests.ray.conftest import demo


@pytest.fixture(scope="module")
def ready() -> Iterator[Ready]:
    """Of a real engine on this CPU, whose batch defaults are chosen as for an H100."""
    from vllm.engine import arg_utils

    stand_in = SimpleNamespace(
        get_device_total_memory=lambda: int(DEVICES["h100"].memory),
        get_device_name=lambda: "NVIDIA H100 80GB HBM3",
        is_tpu=lambda: False,
        is_cpu=lambda: False,
    )
    choose = arg_utils.EngineArgs.get_batch_defaults.__func__  # type: ignore[attr-defined]

    def as_on_an_h100(cls: Any, world_size: int) -> Any:
        with pytest.MonkeyPatch.context() as within:
            within.setattr(arg_utils, "current_platform", stand_in)
            return choose(cls, world_size)

    config, prepared = demo()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        patch.setattr(arg_utils.EngineArgs, "get_batch_defaults", classmethod(as_on_an_h100))
        made = Generator(replace(generator_spec(config, prepared), seed=1))
        yield asyncio.run(made.ready())


def test_the_engine_is_built_in_the_offline_class_s_context(ready: Ready) -> None:
    assert ready.limits is not None
    assert (ready.limits.sequences, ready.limits.batched_tokens) == (1024, 16384)
    assert ready.limits.cache_tokens
    assert ready.limits.cache_tokens > 1000


@pytest.mark.parametrize(("overrides", "most"), [((), 1024), (("max_staleness=1", "in_flight=keep"), 1280)])
def test_a_generator_pool_fills_a_replica_to_its_engines_own_limit(ready: Ready, overrides: Any, most: int) -> None:
    config, _ = demo(*overrides)
    kind = Kind(name="generator", start=lambda slot: pytest.fail("nothing starts here"))
    pool = GeneratorPool(kind, 1, Service(config=config, quarantine=QuarantineLog(None, print)))
    worker: Any = SimpleNamespace(ready=ready)
    assert pool._most(worker) == most


def test_a_teachers_call_is_a_step_of_its_engine(ready: Ready) -> None:
    config, _ = demo()
    assert batch_tokens(config.teacher, ready.limits) == 16384


def test_a_plan_counts_on_what_the_run_recorded(ready: Ready, tmp_path: Path) -> None:
    assert ready.limits is not None
    config, _ = demo()
    record_limits(tmp_path, {"generator": ready.limits, "teacher": ready.limits})
    found = engine_limits(config, None, Recorded(config, read_limits(tmp_path)), prompt=64.0, teacher_prompt=64.0)
    assert found == {"generator": ready.limits, "teacher": ready.limits}
    assert isinstance(found["generator"], EngineLimits)
