"""The sections of the engines and of the trainer: sampling, generator, teacher, LoRA, trainer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

from renio_pipeline.config.paths import UserPath
from renio_pipeline.config.schema.recorded import Recorded
from renio_pipeline.config.schema.served import Served
from renio_pipeline.config.schema.values import Beta, Dtype, Section

# Engine options that the pipeline itself sets: a second value would silently break the mathematics or the placement.
OWNED_ENGINE_KEYS = {
    "model": "student (or teacher.model)", "tokenizer": "student", "dtype": "{pool}.dtype", "seed": "seed",
    "tensor_parallel_size": "{pool}.tensor_parallel", "distributed_executor_backend": "{pool}.separate_process",
    "worker_extension_cls": "", "weight_transfer_config": "sync.backend", "logprobs_mode": "", "max_logprobs": "objective.k",
    "disable_log_stats": "metrics_port", "enable_lora": "trainer.lora", "max_lora_rank": "trainer.lora.r",
    "max_loras": "trainer.lora", "enable_sleep_mode": "placement", "runner": "objective.type", "convert": "objective.type",
}  # fmt: skip


OWNED_DEEPSPEED_KEYS = {
    "train_batch_size": "batch_size", "train_micro_batch_size_per_gpu": "trainer.micro_batch_tokens",
    "gradient_accumulation_steps": "trainer.micro_batch_tokens", "gradient_clipping": "trainer.max_grad_norm",
    "bf16": "trainer.dtype", "fp16": "trainer.dtype", "optimizer": "trainer.lr", "scheduler": "trainer.schedule",
    "zero_optimization.stage": "trainer.zero_stage", "zero_allow_untested_optimizer": "",
    "zero_force_ds_cpu_optimizer": "", "steps_per_print": "",
}  # fmt: skip


class Sampling(Section):
    """How training rollouts are sampled."""

    temperature: PositiveFloat = Field(
        1.0, description="Sampling temperature of training rollouts; the distillation temperature is `temperature`."
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="Nucleus sampling: sample from the smallest set of tokens with this probability mass."
    )
    top_k: NonNegativeInt = Field(0, description="Sample from the k likeliest tokens; 0: all tokens.")
    min_p: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Leave out tokens below this share of the likeliest token's probability; 0: none.",
    )
    presence_penalty: float = Field(
        0.0, ge=-2, le=2, description="Subtracted from the logit of every token that the response has already."
    )
    frequency_penalty: float = Field(
        0.0, ge=-2, le=2, description="Subtracted from a token's logit for each time that the response has it."
    )
    repetition_penalty: float = Field(
        1.0,
        gt=0,
        le=10,
        description="Divides positive logits, and multiplies negative ones, of tokens that prompt or response have; 1: none.",
    )
    stop: tuple[str, ...] = Field((), description="Texts at which a response ends; its tokens include them.")
    stop_token_ids: tuple[NonNegativeInt, ...] = Field((), description="Further tokens at which a response ends.")

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if "" in texts:
            raise ValueError("an empty text would end every response at once; leave it out")
        return texts


class Generator(Section):
    """The student's vLLM engines."""

    dtype: Dtype = Field("bfloat16", description="Data type of the weights and the computation.")
    tensor_parallel: PositiveInt = Field(1, description="GPUs that one replica's model is split over.")
    separate_process: bool = Field(
        False, description="Run vLLM's engine in its own process; always the case with tensor_parallel above 1."
    )
    engine: dict[str, Any] = Field(
        default_factory=dict,
        description="Further vLLM engine arguments, passed on; those that the pipeline sets itself are refused.",
    )


class Teacher(Recorded, Served, Generator):
    """The model that scores responses, and its engine."""

    model: UserPath | None = Field(
        None, description="The teacher: a model folder or a hub name; null with method opsd, whose teacher is the student."
    )
    adapter: UserPath | None = Field(
        None, description="Folder of a LoRA adapter that is added to the model, as peft writes it."
    )
    tokenizer: Literal["same", "own"] = Field(
        "same",
        description="same: it must have the student's tokenizer; own: it reads the student's text in its own tokens, and its "
        "scores are laid on the student's by spans of bytes.",
    )
    end_tokens: dict[str, str] = Field(
        default_factory=dict,
        description="Where it ends responses with another token than the student: {student's end: teacher's end}.",
    )
    type: Literal["vllm", "torch", "http", "recorded"] = Field(
        "vllm",
        description="vllm: scored by a vLLM engine; torch: by a transformers forward pass; http: by servers at `urls`; "
        "recorded: nobody scores, responses and signals are those at `path`.",
    )
    attention: Literal["sdpa", "flash_attention_2"] = Field("sdpa", description="Attention implementation of a torch teacher.")
    max_batch_tokens: PositiveInt | None = Field(
        None, description="Tokens scored in one call; null: what a vLLM engine computes in one step, 16384 for a torch teacher."
    )


class Lora(Section):
    """Train low-rank factors besides the frozen weights: W + alpha / r · B A."""

    r: int = Field(64, ge=1, le=512, description="Rank of the factors.")
    alpha: PositiveInt = Field(128, description="Scale: the update is alpha / r · B A.")
    targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="Names of the linear modules that get factors.",
    )


class Trainer(Section):
    """DeepSpeed training: optimizer, micro-batches, LoRA."""

    dtype: Dtype = Field(
        "bfloat16", description="Data type of the forward and backward pass; the optimizer keeps fp32 weights."
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="DeepSpeed ZeRO stage: what is sharded over the ranks.")
    lr: PositiveFloat = Field(5e-6, description="Peak learning rate of AdamW.")
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "linear", description="Learning-rate schedule over `steps`."
    )
    warmup_steps: NonNegativeInt = Field(0, description="Steps of linear warm-up.")
    weight_decay: NonNegativeFloat = Field(0.0, description="Weight decay of AdamW.")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="AdamW's β₁ and β₂.")
    max_grad_norm: NonNegativeFloat = Field(1.0, description="Clip the gradient to this norm; 0: no clipping.")
    micro_batch_tokens: PositiveInt = Field(16384, description="Padded tokens in one forward and backward pass.")
    packing: bool = Field(
        True, description="Lay samples end to end in rows, each attending to itself only; false: one padded row per sample."
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, more time."
    )
    lora: Lora | None = Field(None, description="Train low-rank factors; null: full fine-tuning.")
    offload: Literal["none", "optimizer"] = Field(
        "none", description="colocated: keep the optimizer's state and fp32 weights in host memory while the generators work."
    )
    deepspeed: dict[str, Any] = Field(
        default_factory=dict,
        description="Further DeepSpeed options, passed on; those that the pipeline sets itself are refused.",
    )
