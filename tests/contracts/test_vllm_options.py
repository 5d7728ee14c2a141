"""vLLM's options and defaults: what its engine is built from."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from renio_pipeline.planning.devices import DEVICES
from renio_pipeline.stages.engine_limits import offline_limits
from tests.contracts.conftest import STUDENT
from tests.contracts.reliance import parameters, relied_on

GIB = 2**30
# What ``build_engine`` passes, by the names that it uses.
PASSED = {
    "model", "dtype", "seed", "tensor_parallel_size", "distributed_executor_backend", "worker_extension_cls",
    "weight_transfer_config", "max_logprobs", "disable_log_stats", "max_model_len", "hf_overrides", "enforce_eager",
    "enable_chunked_prefill", "kv_cache_memory_bytes", "enable_sleep_mode", "runner", "convert", "enable_lora", "max_loras",
    "max_lora_rank", "lora_target_modules",
}  # fmt: skip
# Options that would break an assumption of ours if they were passed through, so that checks of ours must know their names.
DANGEROUS = {
    "pipeline_parallel_size", "data_parallel_size", "speculative_config", "enable_batch_sharded_sampling",
    "decode_context_parallel_size", "prefill_context_parallel_size", "max_num_seqs", "max_num_batched_tokens",
    "gpu_memory_utilization", "kv_cache_dtype", "async_scheduling",
}  # fmt: skip


class Device:
    """A CUDA platform with one device, as far as vLLM's defaults ask about it."""

    def __init__(self, name: str, gib: float) -> None:
        self.get_device_name = lambda: name
        self.get_device_total_memory = lambda: int(gib * GIB)
        self.is_tpu = self.is_cpu = lambda: False


@relied_on(
    "vllm", "actors.engines.build.build_engine", breaks="building an engine would raise TypeError for an option it lacks"
)
def test_the_engine_has_every_option_that_we_pass() -> None:
    from vllm import EngineArgs

    assert PASSED - {field.name for field in dataclasses.fields(EngineArgs)} == set()


@relied_on(
    "vllm",
    "renio_pipeline.config.schema.models.OWNED_ENGINE_KEYS",
    "renio_pipeline.config.checks.owned.refuse_owned",
    breaks="a key that we own or must refuse has another name, and a user's value would pass unnoticed",
)
def test_the_options_that_we_refuse_have_these_names() -> None:
    from vllm import EngineArgs

    from renio_pipeline.config.schema import OWNED_ENGINE_KEYS

    assert (DANGEROUS | OWNED_ENGINE_KEYS.keys()) - {field.name for field in dataclasses.fields(EngineArgs)} == set()


@relied_on("vllm", "actors.engines.options.accepted", breaks="valid engine options would be refused, or wrong ones accepted")
def test_reading_the_options_off_the_source_finds_what_the_class_has() -> None:
    from vllm import EngineArgs

    from actors.engines.options import accepted

    assert accepted() == {field.name for field in dataclasses.fields(EngineArgs)}


@pytest.mark.parametrize(
    ("device", "gib", "context", "tokens", "sequences"),
    [
        ("NVIDIA H100 80GB HBM3", 79.2, "LLM_CLASS", 16384, 1024),
        ("NVIDIA H100 80GB HBM3", 79.2, "ENGINE_CONTEXT", 2048, 128),
        ("NVIDIA H200", 139.8, "LLM_CLASS", 16384, 1024),
        ("NVIDIA H200", 139.8, "ENGINE_CONTEXT", 2048, 128),
        ("NVIDIA A100-SXM4-80GB", 79.3, "LLM_CLASS", 8192, 256),
        ("NVIDIA L40S", 44.4, "LLM_CLASS", 8192, 256),
    ],
)
@relied_on(
    "vllm",
    "actors.engines.build.build_engine",
    breaks="engines batch other numbers of tokens and sequences than suit their device",
)
def test_batch_sizes_depend_on_the_usage_context_and_the_device(
    monkeypatch: pytest.MonkeyPatch, device: str, gib: float, context: str, tokens: int, sequences: int
) -> None:
    from vllm.engine import arg_utils
    from vllm.usage.usage_lib import UsageContext

    monkeypatch.setattr(arg_utils, "current_platform", Device(device, gib))
    arguments = arg_utils.EngineArgs(model=STUDENT, enable_chunked_prefill=True)
    model: Any = SimpleNamespace(max_model_len=1024, is_multimodal_model=False, is_encoder_decoder=False)
    parallel: Any = SimpleNamespace(use_batched_dp_moe=False)
    arguments._set_default_max_num_seqs_and_batched_tokens_args(UsageContext[context], model, parallel)
    assert (arguments.max_num_batched_tokens, arguments.max_num_seqs) == (tokens, sequences)


@pytest.mark.parametrize("device", list(DEVICES))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_num_seqs": 8},
        {"max_num_batched_tokens": 512},
        {"max_num_seqs": 2048, "max_num_batched_tokens": 512},
        {"performance_mode": "throughput"},
        {"enable_chunked_prefill": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("context", [16, 1500, 40_000])
@relied_on(
    "vllm",
    "renio_pipeline.stages.engine_limits.offline_limits",
    breaks="the planner counts on other numbers of sequences and tokens than engines on that device have",
)
def test_a_plan_foresees_the_limits_of_an_engine_on_each_device(
    monkeypatch: pytest.MonkeyPatch, device: str, options: dict[str, Any], context: int
) -> None:
    from vllm.engine import arg_utils
    from vllm.usage.usage_lib import UsageContext

    memory = DEVICES[device].memory
    monkeypatch.setattr(arg_utils, "current_platform", Device(device, memory / 2**30))
    arguments = arg_utils.EngineArgs(model=STUDENT, **{"enable_chunked_prefill": True} | options)
    model: Any = SimpleNamespace(max_model_len=context, is_multimodal_model=False, is_encoder_decoder=False)
    parallel: Any = SimpleNamespace(use_batched_dp_moe=False)
    arguments._set_default_max_num_seqs_and_batched_tokens_args(UsageContext.LLM_CLASS, model, parallel)
    found = offline_limits(options, context=context, memory=memory, device=device)
    assert (found.batched_tokens, found.sequences) == (arguments.max_num_batched_tokens, arguments.max_num_seqs)


@relied_on(
    "vllm",
    "actors.engines.build.build_engine",
    breaks="an engine that is built without a usage context would have the batch sizes of another one",
)
def test_an_engine_from_arguments_is_an_engine_context_unless_told_otherwise() -> None:
    from vllm import LLMEngine
    from vllm.usage.usage_lib import UsageContext

    found = parameters(LLMEngine.from_engine_args)
    assert found["usage_context"] is UsageContext.ENGINE_CONTEXT
    assert found["enable_multiprocessing"] is False


@relied_on(
    "vllm",
    "actors.cluster.placement.actor_options",
    breaks="VLLM_ENABLE_V1_MULTIPROCESSING no longer decides whether an engine has a process of its own",
)
def test_an_engine_is_in_this_process_only_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import EngineArgs, envs

    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    assert envs.VLLM_ENABLE_V1_MULTIPROCESSING is True
    uni = EngineArgs(model=STUDENT, max_model_len=64, distributed_executor_backend="uni")
    # With a process of its own a CPU engine has a worker process too: "uni" is then overruled.
    assert uni.create_engine_config().parallel_config.distributed_executor_backend == "mp"
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    assert envs.VLLM_ENABLE_V1_MULTIPROCESSING is False
    assert uni.create_engine_config().parallel_config.distributed_executor_backend == "uni"


@relied_on(
    "vllm",
    "actors.engines.loop.EngineLoop.hold",
    breaks="CPU engines would schedule asynchronously as GPU engines do, which no test of the engine loop takes account of",
)
def test_a_cpu_forces_asynchronous_scheduling_off(vllm_config: Any) -> None:
    assert vllm_config.scheduler_config.async_scheduling is False  # although it was asked for


@relied_on(
    "vllm",
    "renio_pipeline.planning.memory.UTILIZATION",
    breaks="the planner gives engines another share of a GPU than vLLM does",
)
def test_an_engine_takes_this_share_of_a_gpu(vllm_config: Any) -> None:
    from renio_pipeline.planning.memory import UTILIZATION

    assert vllm_config.cache_config.gpu_memory_utilization == UTILIZATION


@relied_on(
    "vllm",
    "actors.engines.vllm_extension.RenioWorker.renio_configure",
    breaks="sampling sharded by batch ignores our trim, and tokens that the teacher lacks would be drawn",
)
def test_sampling_is_not_sharded_by_batch_by_default(vllm_config: Any) -> None:
    assert vllm_config.parallel_config.enable_batch_sharded_sampling is False


@relied_on(
    "vllm",
    "actors.engines.generator.Generator._params",
    "actors.engines.vllm_teacher.Teacher.score",
    breaks="log-probabilities would be those after top-k, top-p and penalties, not those of the model",
)
def test_log_probabilities_are_raw_by_default(vllm_config: Any) -> None:
    assert vllm_config.model_config.logprobs_mode == "raw_logprobs"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"hf_overrides": {"head_dtype": "float32"}}, "float32"),
        ({"hf_overrides": {"head_dtype": "model"}, "runner": "pooling", "convert": "embed"}, "bfloat16"),
    ],
)
@relied_on(
    "vllm",
    "actors.engines.build.build_engine",
    breaks="logits of a bf16 model would be rounded to bf16, or hidden states cast to fp32",
)
def test_the_head_has_the_dtype_that_overrides_say(options: dict[str, Any], expected: str) -> None:
    import torch
    from vllm import EngineArgs

    model = EngineArgs(model=STUDENT, dtype="bfloat16", **options).create_model_config()
    assert model.head_dtype == getattr(torch, expected)


@relied_on("vllm", "renio_pipeline.config.checks.batch.check_batch", breaks="the bound on sampling temperatures is another")
def test_sampling_temperatures_end_at_two() -> None:
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    assert SamplingParams(temperature=2.0).temperature == 2.0
    with pytest.raises(VLLMValidationError, match="temperature"):
        SamplingParams(temperature=2.01)
