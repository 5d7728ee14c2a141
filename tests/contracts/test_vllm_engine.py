"""vLLM's engine as ``actors.engines.loop`` drives it: holding, sleeping, aborting, versions and outputs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args
from unittest.mock import MagicMock

import pytest

from tests.contracts.reliance import REQUIRED, expressions, parameters, relied_on


def core(*, asleep: bool = False) -> Any:
    """A core that remembers what is asked of its scheduler and executor."""
    from vllm.v1.engine.core import EngineCore

    engine = object.__new__(EngineCore)
    engine.scheduler, engine.model_executor = MagicMock(), MagicMock(is_sleeping=asleep)
    return engine


@relied_on("vllm", "actors.engines.loop.EngineLoop.hold", breaks="an engine would step while half of its weights are new")
def test_level_zero_pauses_the_scheduler_waits_for_the_device_and_frees_nothing() -> None:
    from vllm.v1.core.sched.interface import PauseState

    engine = core()
    assert engine.sleep(level=0, mode="keep") is None
    engine.scheduler.set_pause_state.assert_called_once_with(PauseState.PAUSED_ALL)
    engine.scheduler.finish_requests.assert_not_called()
    engine.scheduler.reset_prefix_cache.assert_not_called()
    engine.model_executor.collective_rpc.assert_called_once_with("synchronize_device")
    engine.model_executor.sleep.assert_not_called()


@relied_on(
    "vllm",
    "actors.engines.loop.EngineLoop.release",
    "actors.engines.loop.EngineLoop.mark_weights_invalid",
    breaks="an engine that was held would stay so",
)
def test_waking_the_scheduling_alone_resumes_and_touches_no_memory() -> None:
    from vllm.v1.core.sched.interface import PauseState

    engine = core()
    assert engine.wake_up(tags=["scheduling"]) is True
    engine.model_executor.wake_up.assert_not_called()
    engine.scheduler.set_pause_state.assert_called_once_with(PauseState.UNPAUSED)


@relied_on(
    "vllm",
    "actors.engines.loop.EngineLoop.sleep",
    "actors.engines.loop.EngineLoop.wake_up",
    breaks="GPU memory would not be freed",
)
def test_level_one_frees_memory_and_a_plain_waking_takes_all_of_it() -> None:
    engine = core()
    engine._reset_caches = MagicMock()
    engine.sleep(level=1)
    engine.model_executor.sleep.assert_called_once_with(1)
    engine.wake_up()
    engine.model_executor.wake_up.assert_called_once_with(None)


@relied_on("vllm", "actors.engines.loop.EngineLoop", "actors.engines.loop.reset_cache", breaks="a call would raise TypeError")
def test_the_methods_of_the_engine_take_what_we_give_them() -> None:
    from vllm import LLMEngine
    from vllm.v1.engine import PauseMode

    assert parameters(LLMEngine.sleep) == {"level": 1, "mode": "abort"}
    assert "keep" in get_args(PauseMode)
    assert parameters(LLMEngine.wake_up) == {"tags": None}
    assert parameters(LLMEngine.reset_prefix_cache)["reset_running_requests"] is False
    assert list(parameters(LLMEngine.set_weight_version)) == ["weight_version"]
    assert parameters(LLMEngine.get_weight_version) == {}
    assert parameters(LLMEngine.abort_request) == {"request_ids": REQUIRED, "internal": False}
    assert list(parameters(LLMEngine.add_request))[:3] == ["request_id", "prompt", "params"]
    assert parameters(LLMEngine.add_request)["lora_request"] is None
    assert list(parameters(LLMEngine.collective_rpc))[:3] == ["method", "timeout", "args"]


@relied_on(
    "vllm",
    "actors.engines.loop.reset_cache",
    "actors.engines.vllm_replica.VllmReplica._adopt",
    breaks="old weights' cache would be reused",
)
def test_the_prefix_cache_of_running_requests_is_dropped_by_preempting_them() -> None:
    from vllm.v1.core.sched.scheduler import Scheduler

    preempted: list[str] = []
    scheduler: Any = object.__new__(Scheduler)
    scheduler.running, scheduler.prev_step_scheduled_req_ids = ["first", "second"], {"first"}
    scheduler.kv_cache_manager, scheduler.aux_output_connector = MagicMock(), None
    scheduler.kv_cache_manager.reset_prefix_cache.side_effect = lambda: not scheduler.running
    scheduler._preempt_request = lambda request, *_, **__: preempted.append(request)
    assert scheduler.reset_prefix_cache() is False  # it is refused, not done by halves
    assert scheduler.running == ["first", "second"]
    assert scheduler.reset_prefix_cache(reset_running_requests=True) is True
    assert preempted == ["second", "first"]


@relied_on(
    "vllm",
    "actors.engines.loop.EngineLoop._step",
    "actors.engines.loop.EngineLoop.cancel_all",
    breaks="answers would come under names that nobody waits for, and aborts would reach nobody",
)
def test_a_request_keeps_the_name_that_it_was_given_though_the_engine_calls_it_something_else() -> None:
    """Read, but for the renaming: outputs are named by ``external_req_id``, and so are requests to abort."""
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.engine.output_processor import OutputProcessor, RequestState

    request: Any = SimpleNamespace(request_id="7", external_req_id=None)
    InputProcessor.assign_request_id(request)
    assert request.external_req_id == "7"
    assert "self.external_req_id" in expressions(RequestState.make_request_output)
    assert "self.external_req_ids" in expressions(OutputProcessor.abort_requests)


@relied_on(
    "vllm",
    "actors.engines.generator.Generator._written",
    breaks="a sample would carry another version than the weights that wrote it",
)
def test_spans_of_weight_versions_come_in_the_order_of_the_tokens() -> None:
    from vllm.outputs import CompletionOutput
    from vllm.v1.engine.output_processor import RequestState

    tokens = iter([0, 3, 5, 5])
    state: Any = object.__new__(RequestState)
    state.weight_version_starts, state.detokenizer = [], SimpleNamespace(num_output_tokens=lambda: next(tokens))
    for version in ("0.1", "0.1", "0.2", "0.3"):
        state.track_weight_version(version)
    state.detokenizer = SimpleNamespace(num_output_tokens=lambda: 8)
    spans = state._weight_version_spans()
    assert [(s.version, s.start, s.end) for s in spans] == [("0.1", 0, 3), ("0.2", 3, 5), ("0.3", 5, 8)]
    assert parameters(CompletionOutput)["weight_versions"] is None


@relied_on(
    "vllm",
    "actors.engines.generator.Generator._written",
    breaks="whole responses would be taken for aborted ones, or the reverse",
)
def test_reasons_to_finish_have_these_names() -> None:
    from vllm.v1.engine import FinishReason

    from renio_pipeline.types import StopReason

    assert {str(reason) for reason in FinishReason} == {"stop", "length", "abort", "error", "repetition"}
    assert set(get_args(StopReason)) == {str(FinishReason.STOP), str(FinishReason.LENGTH)}


@relied_on(
    "vllm", "actors.engines.loop._raise_if_dead", breaks="a dead engine process would be taken for one request's own error"
)
def test_the_error_of_a_dead_engine_process_has_this_name() -> None:
    """Read: the client raises it, and no subclass of it."""
    from vllm.v1.engine.core_client import MPClient
    from vllm.v1.engine.exceptions import EngineDeadError

    assert EngineDeadError.__name__ == "EngineDeadError"
    assert EngineDeadError.__subclasses__() == []
    assert any(
        "EngineDeadError(" in text for text in expressions(MPClient.ensure_alive) | expressions(MPClient._format_exception)
    )


@relied_on(
    "vllm",
    "actors.engines.vllm_hidden_teacher.HiddenTeacher.score",
    "actors.engines.vllm_hidden_teacher._own",
    breaks="hidden states would be pooled, normalised, missing for cached prefixes or in another order",
)
def test_states_of_every_token_are_a_pooling_task_that_both_runners_know() -> None:
    import torch
    from vllm import PoolingParams
    from vllm.model_executor.layers.pooler.tokwise.methods import AllPool
    from vllm.outputs import PoolingOutput
    from vllm.v1.pool.metadata import PoolingStates
    from vllm.v1.worker.gpu.pool.pooling_runner import _SUPPORTED_TASKS

    asked = PoolingParams(task="token_embed", use_activation=False, skip_reading_prefix_cache=True)
    assert "use_activation" in asked.valid_parameters["token_embed"]
    assert "token_embed" in _SUPPORTED_TASKS
    assert PoolingOutput(data=torch.zeros(1)).data.shape == (1,)
    assert PoolingStates().hidden_states_cache == []
    # The chunks of a prompt in order, the last one at the end: ``_own`` counts from there.
    assert "torch.concat(hidden_states_cache, dim=0)" in expressions(AllPool.forward)


@pytest.mark.parametrize(
    "name",
    [
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
        "num_preemptions",
        "prompt_tokens",
        "generation_tokens",
    ],
)
@relied_on(
    "vllm",
    "actors.engines.vllm_replica.VllmReplica.engine_text",
    "deploy.grafana.rows.cluster",
    breaks="the endpoint and the dashboard would show nothing for this metric",
)
def test_metrics_of_the_dashboard_are_in_the_registry(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Read, but for the registry: an engine would have to run for the metrics to be there."""
    import inspect

    from prometheus_client import REGISTRY
    from vllm.v1.metrics import loggers
    from vllm.v1.metrics.prometheus import get_prometheus_registry

    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    assert get_prometheus_registry() is REGISTRY
    assert f'name="vllm:{name}"' in inspect.getsource(loggers.PrometheusStatLogger)
