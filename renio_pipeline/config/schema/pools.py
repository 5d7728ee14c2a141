"""The sections of the pools: sizes, placement, weight transfer, payload, and what happens after faults."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from renio_pipeline.config.schema.values import LabelKey, LabelSelector, ResourceName, Section


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
