"""vLLM's real ``LLMEngine`` in this process, scheduled as on a GPU, over an executor that computes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from vllm import EngineArgs, LLMEngine
from vllm.platforms.cpu import CpuPlatform
from vllm.v1.core.sched.async_scheduler import AsyncScheduler

import renio_pipeline
from actors.engines.specs import EngineSpec
from renio_pipeline.types import FIRST_VERSION
from tests.async_engine.stub_executor import StubExecutor
from tests.async_engine.stub_worker import BLOCKS

CONTEXT = 128  # the demo model's
SPEC = EngineSpec(
    model=str(Path(renio_pipeline.__file__).parent / "demo" / "student"),
    dtype="float32",
    context=CONTEXT,
    temperature=1.0,
    vocab_size=258,
    sync_backend="host",
)


def build(spec: EngineSpec, *, blocks: int = BLOCKS, **options: Any) -> LLMEngine:
    """As ``actors.engines.build.build_engine``, but for the executor.

    Args:
        blocks: of the KV cache.
        options: of vLLM's ``EngineArgs``.
    """
    with _scheduled_as_on_a_gpu():
        args = EngineArgs(
            model=spec.model,
            dtype=spec.dtype,
            max_model_len=spec.context,
            distributed_executor_backend=StubExecutor,
            num_gpu_blocks_override=blocks,
            max_logprobs=spec.max_logprobs + 1,
            disable_log_stats=True,
            **options,
        )
        config = args.create_engine_config()
        engine = LLMEngine(config, StubExecutor, log_stats=False, multiprocess_mode=False)
    core = engine.engine_core.engine_core
    assert core.async_scheduling
    assert core.batch_queue_size == 2
    assert core.step_fn == core.step_with_batch_queue
    assert type(core.scheduler) is AsyncScheduler
    assert core.scheduler.use_v2_model_runner
    engine.collective_rpc("renio_configure", args=(spec.temperature, spec.vocab_size))
    engine.set_weight_version(str(FIRST_VERSION))
    return engine


@contextmanager
def _scheduled_as_on_a_gpu() -> Iterator[None]:
    """The CPU platform's hook has the last word on async scheduling, and forces it off: only that is undone."""
    adapt = CpuPlatform.check_and_update_config

    def adapt_and_restore(config: Any) -> None:
        wanted = config.scheduler_config.async_scheduling
        adapt(config)
        config.scheduler_config.async_scheduling = wanted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpuPlatform, "check_and_update_config", staticmethod(adapt_and_restore))
        patch.setattr("vllm.config.vllm.HAS_TRITON", True)  # the model runner of GPUs needs it, and with it another scheduling
        patch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
        yield
