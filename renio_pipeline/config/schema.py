"""Every key of a run's configuration, its default and what it allows. ``renio_pipeline.config.load`` reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from renio_pipeline.config.layouts import PRESETS, FieldName, Preset
from renio_pipeline.config.paths import UserPath, expanded


def _no_half(name: Any) -> Any:
    if str(name).lower().removeprefix("torch.") in ("float16", "fp16", "half"):
        raise ValueError(
            f"{name!r} is not allowed: half precision overflows without loss scaling, which the pipeline does not do; allowed: "
            "float32, bfloat16"
        )
    return name


Dtype = Annotated[Literal["float32", "bfloat16"], BeforeValidator(_no_half)]
DTYPE_BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2}
Beta = Annotated[float, Field(ge=0, lt=1)]
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
    """Which tokens count as pivotal: those whose log-ratio log p_S − log p_T, clipped from above, reaches the threshold."""

    threshold: float = 0.8  # nats
    clip: float = 2.5  # nats
    temperature: PositiveFloat = 1.0  # of the weights: raw weight = exp(mean pivotal log-ratio / temperature)

    def check(self, section: str) -> None:
        """Raises ValueError for values with which weights say nothing or overflow. ``section``: where their keys are."""
        if self.clip <= self.threshold:
            raise ValueError(
                f"clip ({self.clip}) must be greater than threshold ({self.threshold}): log-ratios are clipped before they "
                "are compared, so otherwise no token could be pivotal, or every pivotal token would count the same; raise "
                f"{section}.clip or lower {section}.threshold"
            )
        if self.clip / self.temperature > 80:
            raise ValueError(
                f"clip / temperature ({self.clip} / {self.temperature}) is above 80, and raw weights, exp of up to that, would "
                f"overflow; lower {section}.clip or raise weighting.temperature"
            )


class Diagnostics(Section):
    """What metrics, samples and reports count as a pivotal token. The weights do not depend on it."""

    threshold: float | None = Field(
        None,
        description="Log-ratio (nats) from which a token is reported as pivotal; null: the weighting's own threshold, or 0.8.",
    )
    clip: float | None = Field(
        None,
        description="Upper bound (nats) on log-ratios in the raw weight that is reported; null: the weighting's own, or 2.5.",
    )


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


def _as_texts(values: Any) -> Any:
    return [str(value) for value in (values if isinstance(values, (list, tuple)) else [values])]


Only = Annotated[tuple[str, ...], BeforeValidator(_as_texts), Field(min_length=1)]


class Source(Section):
    """Where rows come from."""

    path: UserPath | None = Field(
        None, description="JSON Lines, JSON, CSV, Parquet, a folder of them, or a hub name; null: the task makes its own."
    )
    subset: str | None = Field(None, description="Configuration of the data set, for a hub name or a folder laid out like one.")
    split: str = Field("train", description="Split of the data set, for a hub name or a folder.")
    fields: dict[FieldName, str] = Field(
        default_factory=dict,
        description="The source's names for our fields, where they differ; a.b is field b of the object a.",
    )
    only: dict[str, Only] = Field(
        default_factory=dict,
        description="Read only the rows whose field has this value, or one of these: `{data_source: openai/gsm8k}`.",
    )
    preset: Preset | None = Field(
        None, description="The layout of a published data set or framework; `fields` takes precedence."
    )

    @property
    def names(self) -> dict[FieldName, str]:
        """The source's name for each field that the preset or the user gives one."""
        return {**(PRESETS[self.preset] if self.preset else {}), **self.fields}


Audience = Literal["student", "reasoning", "teacher", "evaluation"]
PLACEHOLDER = r"(?<![\\\w}])\{([a-z_]+)\}"  # not the braces of TeX, as in \\boxed{answer}


def _text_or_file(text: Any) -> Any:
    """``@prompts/teacher.txt`` is replaced by what that file has."""
    if not isinstance(text, str) or not text.startswith("@"):
        return text
    path = Path(expanded(text[1:]))
    try:
        found = path.read_text(encoding="utf-8")
        return f"\n{found}" if found.startswith("@") else found  # a run's record has the text, and is read again
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); @ at the start of a text names a file") from None


Text = Annotated[str, BeforeValidator(_text_or_file)]


def _with(*placeholders: str) -> Any:
    def check(text: str) -> str:
        for name in re.findall(PLACEHOLDER, text):
            if name not in placeholders:
                allowed = ", ".join(f"{{{one}}}" for one in placeholders)
                raise ValueError(f"{{{name}}} is no placeholder here; allowed: {allowed}")
        if "{problem}" not in text:
            raise ValueError("the text has no {problem}, so that every row would be asked the same")
        return text

    return Annotated[Text, AfterValidator(check)]


class Prompts(Section):
    """How problems are asked. A text that starts with @ names a file that has it."""

    system: Text | None = Field(None, description="A system message before the others; null: none.")
    student: _with("problem", "instruction") | None = Field(  # type: ignore[valid-type]
        None, description="The student's user message, with {problem} and {instruction}; null: the task's own."
    )
    teacher: _with("problem", "instruction", "solution", "reasoning") | None = Field(  # type: ignore[valid-type]
        None,
        description="The same for a teacher that is shown the {solution}: `method.privileged`, or OPSD; null: the task's own. "
        "{reasoning}: the analysis of `method.reason_first`.",
    )
    reasoning: _with("problem", "instruction", "solution") | None = Field(  # type: ignore[valid-type]
        None,
        description="`method.reason_first`: asks the teacher for its analysis of the {solution}; null: in words of our own.",
    )
    evaluation: _with("problem", "instruction") | None = Field(  # type: ignore[valid-type]
        None, description="The user message of held-out problems and of `renio eval`; null: as the student is asked."
    )
    instruction: Text | None = Field(
        None,
        description="What {instruction} stands for, and what follows the problem where `student` is null; null: the task's.",
    )


class ProblemSource(Source):
    """Where training and held-out problems come from."""

    problems: PositiveInt = Field(4096, description="Training problems that a generating task makes.")
    held_out_path: UserPath | None = Field(
        None, description="Held-out problems for evaluation, when `path` is given; the same fields as `path`."
    )
    held_out_split: str | None = Field(None, description="Split of held_out_path; null: the value of `split`.")


class MixedSource(ProblemSource):
    """One of several sources, whose problems are mixed by weight."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="What metrics, samples and row ids call it; null: the name of its file, folder or task.",
    )
    weight: NonNegativeFloat = Field(1.0, description="Its share of the prompts is weight / sum of weights; 0: it is left out.")
    task: UserPath | None = Field(None, description="The task of its problems; null: the run's `task`.")
    task_options: dict[str, Any] | None = Field(
        None, description="Keyword arguments of the task's constructor; null: the run's, where the task is the run's too."
    )
    teacher: str | None = Field(
        None,
        description="Which of `teachers` scores its responses; null: the one that each row names.",
    )
    prompts: Prompts | None = Field(None, description="The section `prompts` for its problems alone; null: the run's.")


class Data(ProblemSource):
    """Where training and held-out problems come from."""

    sources: tuple[MixedSource, ...] | None = Field(
        None, description="Several sources instead of `path`, mixed by weight, each with its own task and teacher."
    )
    max_prompt_tokens: PositiveInt | None = Field(
        None, description="Leave out, and count, rows with a longer prompt; null: a prompt that does not fit is an error."
    )
    changed: Literal["refuse", "continue"] = Field(
        "refuse",
        description="A resume on other data than the run has read: refuse, or continue with the rows that were not drawn yet.",
    )
    chat_template: str | None = Field(
        None, description="Which of the chat templates, where the student's tokenizer has several; null: the default one."
    )
    student_prompt: Literal["chat", "plain"] = Field(
        "chat", description="chat: the student's chat template; plain: the template without its special tokens."
    )


class TemplateOptions(Section):
    """Variables of the chat template, such as `enable_thinking: false`, for each of those who are asked."""

    student: dict[str, Any] = Field(default_factory=dict, description="For the student's training prompts.")
    teacher: dict[str, Any] = Field(default_factory=dict, description="For a teacher that is shown the solution.")
    reasoning: dict[str, Any] = Field(
        default_factory=dict, description="For a teacher that is asked for an analysis: `method.reason_first`."
    )
    evaluation: dict[str, Any] = Field(default_factory=dict, description="For held-out problems and `renio eval`.")


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


class Teacher(Generator):
    """The model that scores responses, and its engine."""

    model: UserPath | None = Field(
        None, description="The teacher: a model folder or a hub name; null with method opsd, whose teacher is the student."
    )
    adapter: UserPath | None = Field(
        None, description="Folder of a LoRA adapter that is added to the model, as peft writes it."
    )
    end_tokens: dict[str, str] = Field(
        default_factory=dict,
        description="Where it ends responses with another token than the student: {student's end: teacher's end}.",
    )
    type: Literal["vllm", "torch"] = Field(
        "vllm", description="vllm: scored by a vLLM engine; torch: by a transformers forward pass."
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


class ReasonFirst(Section):
    """The teacher first writes an analysis of the reference solution, which then stands in its prompt."""

    max_tokens: PositiveInt = Field(
        2048, description="Longest analysis, in tokens; a longer one ends with its last whole sentence."
    )
    temperature: NonNegativeFloat = Field(1.0, description="Sampling temperature of the analysis; 0: the likeliest tokens.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling of the analysis.")
    top_k: NonNegativeInt = Field(0, description="Top-k sampling of the analysis; 0: all tokens.")


def _switched(value: Any) -> Any:
    """``reason_first: true`` is the section with its defaults."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


Reasons = Annotated[
    ReasonFirst | None,
    BeforeValidator(_switched),
    Field(
        description="The teacher first writes an analysis of the reference solution, once for each problem; true: with the "
        "defaults; null: it does not."
    ),
]


class Opd(Section):
    """On-policy distillation from another, stronger model."""

    type: Literal["opd"] = "opd"
    privileged: bool = Field(
        False, description="Show the teacher the row's reference solution, as the reference implementation does."
    )
    reason_first: Reasons = None


class Opsd(Section):
    """On-policy self-distillation: the teacher is the student, shown the reference solution."""

    type: Literal["opsd"] = "opsd"
    teacher: Literal["fixed", "ema", "latest"] = Field(
        "fixed",
        description="Which of the student's weights teach: the first ones, an exponential moving average, or the latest.",
    )
    decay: float = Field(0.999, ge=0, lt=1, description="Decay of the ema teacher, per step.")
    refresh_every: PositiveInt = Field(1, description="Steps between weight updates of the teacher (ema, latest).")
    reason_first: Reasons = None


class Sync(Section):
    """How weights travel from the trainer to generators, and to teachers that follow the student."""

    backend: Literal["host", "nccl", "ipc"] = Field(
        "host", description="How weights reach the engines: through host memory, NCCL, or CUDA IPC (colocated)."
    )
    packed_bytes: PositiveInt | None = Field(
        None, description="GPU memory in which nccl and ipc pack tensors; null: 256 MiB, for ipc at least the largest tensor."
    )
    lora: Literal["merged", "adapter"] = Field(
        "merged", description="With trainer.lora: send generators the merged weights, or the factors only."
    )


class Payload(Section):
    """What teachers send beyond log-probabilities: bounds on it."""

    max_bytes: PositiveInt = Field(
        4 * 2**30, description="Bound on teacher payloads that are scored but not yet trained on; scoring waits at it."
    )


class Autoscale(Section):
    """Let a pool grow while it is the slower stage, and shrink while it waits, between two sizes."""

    min: PositiveInt = Field(1, description="Smallest number of replicas.")
    max: PositiveInt = Field(description="Largest number of replicas.")
    interval_seconds: PositiveFloat = Field(30.0, description="Seconds between two looks at the queue and the idle share.")
    patience: PositiveInt = Field(3, description="Consecutive looks that must agree before the pool changes by one replica.")

    @model_validator(mode="after")
    def _ordered(self) -> Autoscale:
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) must be at least min ({self.min})")
        return self


class Placed(Section):
    """Which of the cluster's nodes a pool's replicas may be on."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # of env: NCCL's values are mostly numbers
    resources: dict[ResourceName, PositiveFloat] = Field(
        default_factory=dict, description="Ray custom resources that one replica holds, as in `ray start --resources`."
    )
    labels: dict[LabelKey, LabelSelector] = Field(
        default_factory=dict,
        description="Labels that its node must have, as in `ray start --labels`: a, !a, in(a, b) or !in(a, b).",
    )


class Pool(Placed):
    """Replicas of one stage: how many, what each holds, and where."""

    replicas: PositiveInt = Field(1, description="Replicas at the start; of the trainer: DeepSpeed ranks, for the whole run.")
    autoscale: Autoscale | None = Field(
        None, description="Resize generators or teachers by load; null: only `renio scale` changes the size."
    )
    cpus: NonNegativeFloat = Field(1.0, description="Logical CPUs of one replica.")
    gpus: NonNegativeFloat = Field(0.0, description="GPUs of one replica: tensor_parallel, or a share of one.")
    env: dict[str, str] = Field(
        default_factory=dict, description="Environment variables of its processes (NCCL_*, GLOO_*, ...)."
    )


class WeightingActor(Placed):
    """The weighting actor. There is one: its normaliser is over the whole batch."""

    replicas: ClassVar[int] = 1
    gpus: ClassVar[float] = 0.0
    cpus: NonNegativeFloat = Field(0.1, description="Logical CPUs of the actor.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables of its process.")


AnyPool = Pool | WeightingActor


class Pools(Section):
    """The stages' replicas and their resources."""

    generator: Pool = Pool()
    teacher: Pool = Pool()
    teachers: dict[str, Pool] = Field(
        default_factory=dict, description="Pools of single `teachers`; what one leaves out is as in pools.teacher."
    )
    trainer: Pool = Pool()
    weighting: WeightingActor = WeightingActor()


COLLECTIVE_MARGIN = 120.0  # seconds: the graces in which a failed transfer is ended, and as many again


class Faults(Section):
    """When a silent worker counts as dead. Every deadline is for one replica."""

    heartbeat_seconds: PositiveFloat = Field(30.0, description="A replica that does not answer a ping for this long is dead.")
    deadline_seconds: PositiveFloat = Field(300.0, description="Time for any request, on top of what its tokens may take.")
    generator_seconds_per_token: PositiveFloat = Field(
        0.5, description="Additional time per token of the longest response, or text of a teacher, that may come."
    )
    teacher_seconds_per_token: PositiveFloat = Field(0.05, description="Additional time per token of a batch to score.")
    start_seconds: PositiveFloat = Field(1800.0, description="Time from a replica's resources to its loaded model.")
    transfer_seconds: PositiveFloat = Field(1800.0, description="Time for one weight sync.")
    lease_seconds: PositiveFloat = Field(
        60.0,
        description="How long a run's lease must be seen without a heartbeat before --takeover takes it over.",
    )

    @property
    def collective_seconds(self) -> float:
        """How long a trainer rank waits for the others: longer than any of them may load, or wait for a lost receiver.

        With less, waiting ranks would abort the run before the one receiver that hangs is given up.
        """
        return max(self.start_seconds, self.transfer_seconds) + COLLECTIVE_MARGIN


class Evaluate(Section):
    """Held-out evaluation during a run, and the sampling of `renio eval`."""

    problems: NonNegativeInt = Field(512, description="Held-out problems; 0: no evaluation.")
    every: NonNegativeInt = Field(0, description="Steps between evaluations; 0: only before the first step and after the last.")
    temperature: PositiveFloat = Field(1.0, description="Sampling temperature of evaluation.")
    prompt: Literal["chat", "plain"] = Field(
        "chat", description="chat: the chat template; plain: the template without its special tokens."
    )
    top_p: float | None = Field(None, gt=0, le=1, description="Nucleus sampling of `renio eval`; null: as in sampling.")
    top_k: NonNegativeInt | None = Field(
        None, description="Top-k sampling of `renio eval`; 0: all tokens; null: as in sampling."
    )
    max_response_tokens: PositiveInt | None = Field(None, description="Longest response of `renio eval`; null: as in training.")
    samples: PositiveInt | None = Field(
        None,
        description="Responses of `renio eval` to a problem; null: each suite's own number, or 1.",
    )
    seed: int | None = Field(None, ge=0, lt=2**31, description="Seed of `renio eval`; null: `seed`.")
    suites: tuple[str, ...] = Field(
        (), description="Benchmarks of `renio eval` where --suite and --data name none; empty: the held-out problems."
    )
    markers: UserPath | None = Field(
        None, description="File of reflection markers, one per line; null: the package's own list."
    )


class Checkpoint(Section):
    """When checkpoints are written and kept."""

    every: NonNegativeInt = Field(0, description="Steps between checkpoints; 0: only after the last step.")
    keep: PositiveInt = Field(3, description="How many of the newest checkpoints stay.")
    grace_seconds: NonNegativeFloat = Field(
        60.0, description="Time after SIGTERM for the step under way and a last checkpoint."
    )
    merged: bool = Field(False, description="With trainer.lora: write the merged model (hf/) besides the adapter.")


class Trace(Section):
    """``trace.json`` in the run's directory, for Perfetto."""

    steps: NonNegativeInt = Field(20, description="How many of the last steps trace.json shows; 0: no trace.")


class Wandb(Section):
    """The sink ``wandb``."""

    mode: Literal["online", "offline"] = Field(
        "online", description="offline: keep the records below run_dir, for `wandb sync` later."
    )
    project: str = Field("renio", description="Project on Weights & Biases.")
    entity: str | None = Field(None, description="User or team on Weights & Biases; null: the account's default.")
    group: str | None = Field(None, description="Group of runs on Weights & Biases; null: none.")


class Mlflow(Section):
    """The sink ``mlflow``."""

    tracking_uri: str | None = Field(
        None,
        description="Server or database of MLflow; null: MLFLOW_TRACKING_URI, or else the database mlflow.db below run_dir. "
        "Passwords belong in the environment.",
    )
    experiment: str = Field("renio", min_length=1, description="Experiment at MLflow; created where there is none.")


class Trackio(Section):
    """The sink ``trackio``."""

    project: str = Field("renio", min_length=1, description="Project of Trackio.")
    space: str | None = Field(
        None, description="Space on the Hugging Face hub, as user/name, that shows the project; null: on this machine."
    )


class Swanlab(Section):
    """The sink ``swanlab``."""

    mode: Literal["online", "offline"] = Field(
        "online", description="offline: keep the records below run_dir, for `swanlab sync` later."
    )
    project: str = Field("renio", min_length=1, description="Project of SwanLab.")
    workspace: str | None = Field(None, description="Workspace of SwanLab; null: the account's own.")


Sinks = tuple[Literal["tensorboard", "wandb", "mlflow", "trackio", "swanlab"], ...]
METHODS: dict[str, type[Section]] = {"opd": Opd, "opsd": Opsd}
