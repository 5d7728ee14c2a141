"""Build a vLLM engine from its specification."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from actors.cluster.kept_imports import kept_imports
from actors.engines.own_process import check_shared_memory, last_words
from actors.engines.specs import EngineSpec
from renio_pipeline.models.adapters import buffer_rank
from renio_pipeline.stages.engine_limits import EngineLimits
from renio_pipeline.types import FIRST_VERSION

if TYPE_CHECKING:
    from vllm import LLMEngine

CPU_CACHE_BYTES = 2**30  # default KV cache of a CPU engine; vLLM's default would take most of the machine's memory


def build_engine(spec: EngineSpec) -> LLMEngine:
    """Load the model and configure the engine's workers.

    Raises:
        ConfigError: the node lacks the shared memory that an engine in a process of its own needs.
        EngineFailed: an engine in a process of its own did not start.
        Exception: whatever vLLM raises.
    """
    check_shared_memory(
        spec.section, separate_process=spec.separate_process, tensor_parallel=spec.tensor_parallel, on_gpu=spec.on_gpu
    )
    with kept_imports():
        from vllm import EngineArgs, LLMEngine
        from vllm.config.weight_transfer import WeightTransferConfig
        from vllm.usage.usage_lib import UsageContext

        import actors.engines.vllm_extension  # noqa: F401  registers the host backend if the engine runs in this process

    options = dict(spec.options)
    if spec.dtype == "bfloat16":  # bf16 logits near 20 are 0.125 apart, so the head and the softmax need fp32
        head_dtype = "model" if spec.hidden_states else "float32"  # hidden states must stay as the model computes them
        options["hf_overrides"] = {"head_dtype": head_dtype, **options.get("hf_overrides", {})}
    if not spec.on_gpu:
        # Chunked prefill rewinds a seeded request's generator; torch's CPU generator cannot, so chunking is off here.
        options = {"enforce_eager": True, "enable_chunked_prefill": False, "kv_cache_memory_bytes": CPU_CACHE_BYTES} | options
    if spec.sleeps and spec.on_gpu:
        options["enable_sleep_mode"] = True
    if spec.hidden_states:
        options |= {"runner": "pooling", "convert": "embed"}
    if spec.lora is not None:
        rank = buffer_rank(spec.lora.r)
        options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank, "lora_target_modules": list(spec.lora.targets)}
    if spec.adapter is not None:
        # Not all that could have factors: vLLM would wrap its logits processor too, which has the distillation temperature.
        targets = list(spec.adapter.targets)
        rank = buffer_rank(spec.adapter.rank)
        options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank, "lora_target_modules": targets}
    args = EngineArgs(
        model=spec.model,
        dtype=spec.dtype,
        seed=spec.seed,
        tensor_parallel_size=spec.tensor_parallel,
        # In a placement group vLLM would choose its Ray executor, which competes for the resources this actor already holds.
        distributed_executor_backend="mp" if spec.tensor_parallel > 1 else "uni",
        worker_extension_cls="actors.engines.vllm_extension.RenioWorker",
        weight_transfer_config=WeightTransferConfig(backend=spec.sync_backend) if spec.sync_backend else None,
        max_logprobs=spec.max_logprobs + 1,
        disable_log_stats=not spec.counts,
        **({"max_model_len": spec.context} | options),
    )
    # A bare engine's defaults (128 sequences, 2048 tokens a step) are for testing. The offline class's suit the device.
    with last_words() if spec.own_process else nullcontext():
        engine = LLMEngine.from_engine_args(args, UsageContext.LLM_CLASS, enable_multiprocessing=spec.own_process)
    engine.collective_rpc("renio_configure", args=(spec.temperature, spec.vocab_size))
    engine.set_weight_version(str(FIRST_VERSION))  # vLLM labels every token with it
    return engine


def read_limits(engine: LLMEngine) -> EngineLimits:
    """The limits an engine was built with, whether it runs in this process or in its own."""
    scheduler, cache = engine.vllm_config.scheduler_config, engine.vllm_config.cache_config
    return EngineLimits(
        sequences=scheduler.max_num_seqs,
        batched_tokens=scheduler.max_num_batched_tokens,
        cache_tokens=cache.num_gpu_blocks * cache.block_size if cache.num_gpu_blocks else None,
    )
