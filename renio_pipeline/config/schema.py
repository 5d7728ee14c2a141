"""Every key of a run's configuration, its default and what it allows. ``renio_pipeline.config.load`` reads it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Dtype = Literal["float32", "bfloat16"]
DTYPE_BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2}
Beta = Annotated[float, Field(ge=0, lt=1)]
FieldName = Literal["id", "problem", "answer", "solution", "teacher", "tests"]
Preset = Literal["openthoughts-maths", "openthoughts-code"]
PRESETS: dict[Preset, dict[FieldName, str]] = {  # the names that the published data sets have for our fields
    "openthoughts-maths": {"problem": "problem", "solution": "solution", "answer": "Answer"},
    "openthoughts-code": {"problem": "problem", "solution": "ground_truth_solution", "tests": "test_cases"},
}
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
LabelSelector = Annotated[
    str,
    Field(pattern=rf"^!?(?:{_WORD}|in\({_WORD}(?:, ?{_WORD})*\))$"),
    AfterValidator(lambda text: text.replace(" ", "")),  # Ray accepts the spaces, and takes them for a part of the values
]
LabelKey = Annotated[str, Field(pattern=rf"^(?:{_WORD}/)?{_WORD}$")]


def _custom(name: str) -> str:
    keys = {"CPU": "cpus", "GPU": "gpus"}
    if name in keys or name in ("memory", "object_store_memory"):
        raise ValueError(f"{name} is Ray's own; " + (f"set {keys[name]} instead" if name in keys else "choose another name"))
    return name


ResourceName = Annotated[str, Field(min_length=1), AfterValidator(_custom)]

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


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Pivotal(Section):
    threshold: float = Field(0.8, description="a token is pivotal from this log-ratio on")
    clip: float = Field(2.5, description="log-ratios are clipped from above here")

    @model_validator(mode="after")
    def _clip_above_threshold(self) -> Pivotal:
        if self.clip <= self.threshold:
            raise ValueError(
                f"clip ({self.clip}) must be greater than threshold ({self.threshold}): log-ratios are clipped before they "
                "are compared, so otherwise no token could be pivotal, or every pivotal token would count the same; raise "
                "weighting.clip or lower weighting.threshold"
            )
        return self


class Renio(Pivotal):
    """ReNIO sample weights (arXiv 2606.23104)."""

    type: Literal["renio"] = "renio"
    temperature: PositiveFloat = Field(1.0, description="weight temperature: raw weight = exp(mean pivotal ratio / this)")
    normalization: Literal["batch_mean", "clamp", "ema", "none"] = "batch_mean"
    group_size: PositiveInt | None = Field(None, description="normalise in groups, to reproduce the reference; null: batch")

    @model_validator(mode="after")
    def _no_overflow(self) -> Renio:
        if self.clip / self.temperature > 80:
            raise ValueError(
                f"clip / temperature ({self.clip} / {self.temperature}) is above 80, and raw weights, exp of up to that, would "
                "overflow; raise weighting.temperature"
            )
        return self


class Uniform(Pivotal):
    """Plain distillation: every weight is 1. Threshold and clip serve the diagnostics alone."""

    type: Literal["uniform"] = "uniform"


class TopKForwardKL(Section):
    """Forward KL on the teacher's top K and the sampled token, plus one tail entry for the remaining mass."""

    type: Literal["top_k_forward_kl"] = "top_k_forward_kl"
    k: PositiveInt = 32
    tail: bool = Field(True, description="false: renormalise over the top K, as the reference implementation does")
    entry_clip: PositiveFloat | None = None
    token_clip: PositiveFloat | None = None


class Jsd(Section):
    """The exact divergence over the whole vocabulary; the teacher sends hidden states and the trainer projects them."""

    type: Literal["jsd"] = "jsd"
    beta: float = Field(0.0, ge=0, le=1, description="0: forward KL, 1: reverse KL, between: generalised Jensen-Shannon")
    entry_clip: PositiveFloat | None = None
    token_clip: PositiveFloat | None = None
    chunk_tokens: PositiveInt | None = Field(None, description="tokens whose logits are held at a time; null: by the device")


class Sampled(Section):
    """Policy gradient on the sampled token (k1): the teacher sends one number a token."""

    type: Literal["sampled"] = "sampled"
    importance_clip: PositiveFloat | None = Field(
        2.0, description="with max_staleness: bound of the ratio that corrects for the older policy; null: no correction"
    )


class Sampling(Section):
    temperature: PositiveFloat = Field(1.0, description="T of sampling; the distillation temperature is `temperature`")
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: NonNegativeInt = Field(0, description="0: all tokens")


class Source(Section):
    """Where rows come from."""

    path: str | None = Field(None, description="JSONL, JSON, Parquet, a folder, or a hub name; null: the task makes its own")
    subset: str | None = Field(None, description="of a hub name or a folder, its configuration")
    split: str = Field("train", description="of a hub name or a folder")
    fields: dict[FieldName, str] = Field(default_factory=dict, description="the source's name for a field, where it differs")
    preset: Preset | None = Field(None, description="the fields of a published layout; `fields` counts before it")

    @property
    def names(self) -> dict[FieldName, str]:
        """The source's name for each field that the preset or the user gives one."""
        return {**(PRESETS[self.preset] if self.preset else {}), **self.fields}


class Data(Source):
    problems: PositiveInt = Field(4096, description="how many training problems a generating task makes")
    held_out_path: str | None = Field(None, description="problems for evaluation, when `path` is given; fields as in `path`")
    held_out_split: str | None = Field(None, description="of held_out_path; null: as `split`")
    max_prompt_tokens: PositiveInt | None = Field(
        None, description="leave out, and count, rows whose prompt is longer; null: a prompt that doesn't fit is an error"
    )
    student_prompt: Literal["chat", "plain"] = Field("chat", description="plain: the template without special tokens")


class Generator(Section):
    dtype: Dtype = "bfloat16"
    tensor_parallel: PositiveInt = 1
    separate_process: bool = Field(False, description="vLLM's engine in a process of its own; always so if tensor_parallel > 1")
    engine: dict[str, Any] = Field(default_factory=dict, description="further vLLM engine arguments")


class Teacher(Generator):
    model: str | None = Field(None, description="a folder or a hub name; null for opsd, whose teacher is the student")
    type: Literal["vllm", "torch"] = Field("vllm", description="torch: a transformers forward, which can send hidden states")
    attention: Literal["sdpa", "flash_attention_2"] = Field("sdpa", description="of a torch teacher")
    max_batch_tokens: PositiveInt | None = Field(
        None, description="tokens scored in one call; null: what a vLLM engine computes in one step, 16384 of a torch teacher"
    )


class Lora(Section):
    """Train low-rank factors beside the weights, which never change: W + alpha / r * B A."""

    r: int = Field(64, ge=1, le=512)
    alpha: PositiveInt = 128
    targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="names of the linear modules that get factors",
    )


class Trainer(Section):
    dtype: Dtype = "bfloat16"
    zero_stage: Literal[0, 1, 2, 3] = 2
    lr: PositiveFloat = 5e-6
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_steps: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    max_grad_norm: NonNegativeFloat = Field(1.0, description="0: no clipping")
    micro_batch_tokens: PositiveInt = Field(16384, description="padded tokens in one forward and backward")
    packing: bool = Field(True, description="lay samples end to end in rows; false: a row, and its padding, for each")
    gradient_checkpointing: bool = False
    lora: Lora | None = Field(None, description="null: full fine-tuning")
    offload: Literal["none", "optimizer"] = Field(
        "none", description="colocated: keep the optimizer's state and fp32 weights in host memory while the generators work"
    )
    deepspeed: dict[str, Any] = Field(default_factory=dict, description="further DeepSpeed options")


class Opd(Section):
    """On-policy distillation from another, stronger model."""

    type: Literal["opd"] = "opd"
    privileged: bool = Field(False, description="show the teacher the reference solution, as the reference code does")


class Opsd(Section):
    """On-policy self-distillation: the teacher is the student, shown the reference solution."""

    type: Literal["opsd"] = "opsd"
    teacher: Literal["fixed", "ema", "latest"] = Field("fixed", description="which of the student's weights teach")
    decay: float = Field(0.999, ge=0, lt=1, description="of the ema teacher, per step")
    refresh_every: PositiveInt = Field(1, description="steps between the teacher's weight updates (ema, latest)")


class Sync(Section):
    backend: Literal["host", "nccl", "ipc"] = "host"
    packed_bytes: PositiveInt | None = Field(
        None,
        description="GPU memory in which nccl and ipc pack tensors; null: 256 MiB, of ipc the largest tensor's if more",
    )
    lora: Literal["merged", "adapter"] = Field("merged", description="with trainer.lora: send whole weights, or factors alone")


class Payload(Section):
    max_bytes: PositiveInt = Field(4 * 2**30, description="bound on what is scored but not yet trained on")


class Autoscale(Section):
    """Let a pool grow while it is the slower stage, and shrink while it waits, between two sizes."""

    min: PositiveInt = 1
    max: PositiveInt
    interval_seconds: PositiveFloat = Field(30.0, description="between two looks at the queue and the idle share")
    patience: PositiveInt = Field(3, description="looks in a row that must agree before the pool changes by one replica")

    @model_validator(mode="after")
    def _ordered(self) -> Autoscale:
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) must be at least min ({self.min})")
        return self


class Placed(Section):
    """Which of the cluster's nodes a pool's replicas may be on."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # of env: NCCL's values are mostly numbers
    resources: dict[ResourceName, PositiveFloat] = Field(
        default_factory=dict, description="Ray custom resources that one replica holds, as in `ray start --resources`"
    )
    labels: dict[LabelKey, LabelSelector] = Field(
        default_factory=dict, description="labels of its node, as in `ray start --labels`: a, !a, in(a, b) or !in(a, b)"
    )


class Pool(Placed):
    replicas: PositiveInt = 1
    autoscale: Autoscale | None = Field(None, description="of generators and teachers; null: `replicas`, and `renio scale`")
    cpus: NonNegativeFloat = Field(1.0, description="logical CPUs of one replica")
    gpus: NonNegativeFloat = Field(0.0, description="GPUs of one replica: tensor_parallel, or a share of one")
    env: dict[str, str] = Field(default_factory=dict, description="environment of its processes (NCCL_*, GLOO_*, ...)")


class WeightingActor(Placed):
    """There is one: its normaliser is over the whole batch."""

    replicas: ClassVar[int] = 1
    gpus: ClassVar[float] = 0.0
    cpus: NonNegativeFloat = 0.1
    env: dict[str, str] = Field(default_factory=dict, description="environment of its process")


AnyPool = Pool | WeightingActor


class Pools(Section):
    generator: Pool = Pool()
    teacher: Pool = Pool()
    teachers: dict[str, Pool] = Field(default_factory=dict, description="of single `teachers`; the rest as in `teacher`")
    trainer: Pool = Pool()
    weighting: WeightingActor = WeightingActor()


COLLECTIVE_MARGIN = 120.0  # seconds: the graces in which a failed transfer is ended, and as many again


class Faults(Section):
    """When a worker that says nothing counts as dead. Every deadline is for one replica."""

    heartbeat_seconds: PositiveFloat = Field(30.0, description="without an answer to a ping")
    deadline_seconds: PositiveFloat = Field(300.0, description="for any request, beside what its tokens may take")
    generator_seconds_per_token: PositiveFloat = Field(0.5, description="of the longest response that may come")
    teacher_seconds_per_token: PositiveFloat = Field(0.05, description="of a batch to score")
    start_seconds: PositiveFloat = Field(1800.0, description="from its resources to a loaded model")
    transfer_seconds: PositiveFloat = Field(1800.0, description="for a weight sync")

    @property
    def collective_seconds(self) -> float:
        """How long a trainer rank waits for the others: longer than any of them may load, or wait for a lost receiver.

        With less, waiting ranks would abort the run before the one receiver that hangs is given up.
        """
        return max(self.start_seconds, self.transfer_seconds) + COLLECTIVE_MARGIN


class Evaluate(Section):
    problems: NonNegativeInt = Field(512, description="held-out problems; 0: no evaluation")
    every: NonNegativeInt = Field(0, description="steps between evaluations; 0: before the first and after the last only")
    temperature: PositiveFloat = Field(1.0, description="sampling temperature of evaluation")
    top_p: float | None = Field(None, gt=0, le=1, description="of `renio eval`; null: as in sampling")
    top_k: NonNegativeInt | None = Field(None, description="of `renio eval`; 0: all tokens; null: as in sampling")
    max_response_tokens: PositiveInt | None = Field(None, description="of `renio eval`; null: as in training")
    markers: str | None = Field(None, description="a file of reflection markers, one a line; null: the package's own")


class Checkpoint(Section):
    every: NonNegativeInt = Field(0, description="steps between checkpoints; 0: after the last step only")
    keep: PositiveInt = Field(3, description="how many of the newest ones to keep")
    grace_seconds: NonNegativeFloat = Field(60.0, description="at SIGTERM: for the step under way and a last checkpoint")
    merged: bool = Field(False, description="with trainer.lora: write the merged model (hf/) beside the adapter")


class Trace(Section):
    """``trace.json`` in the run's directory."""

    steps: NonNegativeInt = Field(20, description="how many of the last ones it shows; 0: no trace")


class Wandb(Section):
    """The sink ``wandb``."""

    mode: Literal["online", "offline"] = Field("online", description="offline: below run_dir, for `wandb sync` later")
    project: str = "renio"
    entity: str | None = None
    group: str | None = None


Sinks = tuple[Literal["tensorboard", "wandb"], ...]
Weighting = Annotated[Renio | Uniform, Field(discriminator="type")]
Method = Annotated[Opd | Opsd, Field(discriminator="type")]
Objective = Annotated[TopKForwardKL | Jsd | Sampled, Field(discriminator="type")]
