"""The sections of what a run measures and keeps: evaluation, checkpoints, trace, sinks."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from renio_pipeline.config.paths import UserPath
from renio_pipeline.config.schema.values import Section


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


class Samples(Section):
    """How long a run's responses stay, and how. Only steps that a checkpoint covers are packed or dropped."""

    plain: PositiveInt = Field(
        50, description="The newest steps whose samples stay plain text; those of older ones are packed (.jsonl.zst)."
    )
    keep: PositiveInt | None = Field(
        None,
        description="The newest steps whose responses stay; of older ones batches.jsonl keeps ids, weights, verdicts and "
        "lengths. null: all stay.",
    )


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
