"""The DeepSpeed engine of one rank, around the student."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from actors.cluster.kept_imports import kept_imports
from actors.trainer.messages import RankSpec
from renio_pipeline.config.schema import Lora, Trainer

if TYPE_CHECKING:
    import torch
    from deepspeed import DeepSpeedEngine

    from actors.trainer.lora import MergedSource
    from actors.trainer.weight_source import DeepSpeedSource


def engine_config(trainer: Trainer, world_size: int, *, universal: bool = False) -> dict[str, Any]:
    """DeepSpeed's configuration for our ``trainer`` section."""
    zero = dict(trainer.deepspeed.get("zero_optimization", {})) | {"stage": trainer.zero_stage}
    return {
        **trainer.deepspeed,
        # Micro-batches are formed by tokens, so these counts mean nothing. The caller marks the boundaries.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": world_size,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # torch's AdamW; DeepSpeed's own needs a compiler
        "zero_force_ds_cpu_optimizer": False,
        "gradient_clipping": trainer.max_grad_norm,
        "bf16": {"enabled": trainer.dtype == "bfloat16"},
        "steps_per_print": 2**31,
        **({"checkpoint": trainer.deepspeed.get("checkpoint", {}) | {"load_universal": True}} if universal else {}),
    }


def build(spec: RankSpec, world_size: int) -> DeepSpeedEngine:
    """Join the process group, load the model (under ``zero.Init`` at ZeRO 3) and build the engine.

    RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT must be in the environment.
    """
    with kept_imports():
        import deepspeed
        import torch
        from transformers import AutoModelForCausalLM, get_scheduler
        from transformers.integrations import HfDeepSpeedConfig

        from actors.trainer.lora import add_factors
        from renio_pipeline.models import packed_attention
        from renio_pipeline.models.self_checks import check_head, check_packing
        from renio_pipeline.models.student import TokenLogits

    if not spec.on_gpu:
        # Otherwise DeepSpeed compiles a shared-memory all-reduce, which needs a C++ compiler and takes a minute.
        deepspeed.ops.__compatible_ops__ = {}
    torch.manual_seed(spec.seed)
    timeout = timedelta(seconds=spec.collective_seconds)
    deepspeed.init_distributed("nccl" if spec.on_gpu else "gloo", auto_mpi_discovery=False, timeout=timeout)
    config = engine_config(spec.trainer, world_size, universal=spec.restore is not None and spec.restore.universal)
    # from_pretrained finds this object through a weak reference, so it must live until the model is loaded.
    zero_3 = HfDeepSpeedConfig(config) if spec.trainer.zero_stage == 3 else None
    lm = AutoModelForCausalLM.from_pretrained(spec.model, dtype=getattr(torch, spec.trainer.dtype))
    del zero_3
    if spec.trainer.lora is not None:
        add_factors(lm, spec.trainer.lora, spec.seed)
    if spec.trainer.gradient_checkpointing:
        lm.gradient_checkpointing_enable({"use_reentrant": False})
    model = TokenLogits(lm)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=spec.trainer.lr,
        betas=spec.trainer.betas,
        weight_decay=spec.trainer.weight_decay,
        # On GPUs torch's default (foreach) allocates a third fp32 tensor of every parameter's size.
        fused=True if spec.on_gpu else None,
    )
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config=config,
        lr_scheduler=lambda opt: get_scheduler(
            spec.trainer.schedule, opt, spec.trainer.warmup_steps * spec.passes, spec.steps * spec.passes
        ),
    )
    wait_for_others(timeout)
    check_head(engine.module, engine.device)
    if spec.trainer.packing:
        packed_attention.use(lm)
        check_packing(engine.module, engine.device)
    return engine


def wait_for_others(timeout: timedelta) -> None:
    """Set one timeout for all process groups. DeepSpeed creates some with torch's default, 10 minutes on NCCL."""
    from torch.distributed import distributed_c10d

    for group in distributed_c10d._world.pg_map:
        distributed_c10d._set_pg_timeout(timeout, group)


def optimizer_step(engine: DeepSpeedEngine) -> float:
    """Clip, step, advance the schedule and clear the gradients. Returns the gradient norm before clipping.

    Raises:
        FloatingPointError: the norm is not finite. The weights are then unusable.
    """
    import torch

    norm: Any = None
    if not hasattr(engine.optimizer, "_global_grad_norm"):  # ZeRO 0 in fp32: torch's own optimizer, whole gradients
        grads = [p.grad for p in engine.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        _check(float(norm))
    engine.step()
    norm = float(engine.get_global_grad_norm() if norm is None else norm)
    _check(norm)
    return norm


def _check(norm: float) -> None:
    import math

    if not math.isfinite(norm):
        raise FloatingPointError(f"gradient norm is {norm}")


def weight_source(module: torch.nn.Module, lora: Lora | None, dtype: torch.dtype | None) -> DeepSpeedSource | MergedSource:
    """The student's full weights under their Hugging Face names, as generators, teachers and checkpoints use them.

    Args:
        dtype: the dtype to cast to. None: no cast; with LoRA the merged weights are then in fp32.
    """
    import torch

    from actors.trainer.lora import MergedSource
    from actors.trainer.weight_source import DeepSpeedSource

    if lora is None:
        return DeepSpeedSource(module, dtype=dtype)
    return MergedSource(module, lora, dtype=dtype or torch.float32)


def on_host(source: Iterable[tuple[str, torch.Tensor]], *, keep: bool) -> dict[str, torch.Tensor]:
    """Copies of a source's tensors on the host, for ranks that ``keep`` them. Collective."""
    return {name: tensor.to("cpu", copy=True) for name, tensor in source if keep}
