"""Every section of the configuration and its keys.

``values.py``: values that several sections share, and the base of all sections.
``weights.py``: what counts as a pivotal token.
``data.py``: the sections of the data: one source or several, and how their records are read.
``prompts.py``: the sections of the prompts' texts and of the chat template's variables.
``models.py``: the sections of the engines and of the trainer: sampling, generator, teacher, LoRA, trainer.
``served.py``: the keys of a teacher that is served elsewhere.
``recorded.py``: the key of a teacher whose signals were recorded.
``methods.py``: the sections that ``method.type`` chooses from.
``rewards.py``: learning from the verifier: GRPO, and the reward beside a distillation.
``pools.py``: the sections of the pools: sizes, placement, weight transfer, payload, and what happens after faults.
``record.py``: the sections of what a run measures and keeps: evaluation, checkpoints, samples, trace, sinks.
"""

from renio_pipeline.config.schema.data import Data, MixedSource, Only, ProblemSource, Source
from renio_pipeline.config.schema.methods import METHODS, Opd, Opsd, ReasonFirst, Reasons
from renio_pipeline.config.schema.models import (
    OWNED_DEEPSPEED_KEYS,
    OWNED_ENGINE_KEYS,
    Generator,
    Lora,
    Sampling,
    Teacher,
    Trainer,
)
from renio_pipeline.config.schema.pools import (
    COLLECTIVE_MARGIN,
    AnyPool,
    Autoscale,
    Faults,
    Payload,
    Placed,
    Pool,
    Pools,
    Sync,
    WeightingActor,
)
from renio_pipeline.config.schema.prompts import PLACEHOLDER, Audience, Prompts, TemplateOptions, Text
from renio_pipeline.config.schema.record import Checkpoint, Evaluate, Mlflow, Samples, Sinks, Swanlab, Trace, Trackio, Wandb
from renio_pipeline.config.schema.rewards import Grpo, Reward
from renio_pipeline.config.schema.sft import Sft
from renio_pipeline.config.schema.values import (
    DTYPE_BYTES,
    Beta,
    Dtype,
    LabelKey,
    LabelSelector,
    Method,
    ResourceName,
    Section,
)
from renio_pipeline.config.schema.weights import Diagnostics, Pivotal

__all__ = [
    "COLLECTIVE_MARGIN",
    "DTYPE_BYTES",
    "METHODS",
    "OWNED_DEEPSPEED_KEYS",
    "OWNED_ENGINE_KEYS",
    "PLACEHOLDER",
    "AnyPool",
    "Audience",
    "Autoscale",
    "Beta",
    "Checkpoint",
    "Data",
    "Diagnostics",
    "Dtype",
    "Evaluate",
    "Faults",
    "Generator",
    "Grpo",
    "LabelKey",
    "LabelSelector",
    "Lora",
    "Method",
    "MixedSource",
    "Mlflow",
    "Only",
    "Opd",
    "Opsd",
    "Payload",
    "Pivotal",
    "Placed",
    "Pool",
    "Pools",
    "ProblemSource",
    "Prompts",
    "ReasonFirst",
    "Reasons",
    "ResourceName",
    "Reward",
    "Samples",
    "Sampling",
    "Section",
    "Sft",
    "Sinks",
    "Source",
    "Swanlab",
    "Sync",
    "Teacher",
    "TemplateOptions",
    "Text",
    "Trace",
    "Trackio",
    "Trainer",
    "Wandb",
    "WeightingActor",
]
