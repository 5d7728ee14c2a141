"""The sections that ``method.type`` chooses from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
)

from renio_pipeline.config.schema.rewards import Grpo
from renio_pipeline.config.schema.sft import Sft
from renio_pipeline.config.schema.values import Method, Section


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


class Opd(Method):
    """On-policy distillation from another, stronger model."""

    type: Literal["opd"] = "opd"
    privileged: bool = Field(
        False, description="Show the teacher the row's reference solution, as the reference implementation does."
    )
    reason_first: Reasons = None


class Opsd(Method):
    """On-policy self-distillation: the teacher is the student, shown the reference solution."""

    type: Literal["opsd"] = "opsd"
    teacher: Literal["fixed", "ema", "latest"] = Field(
        "fixed",
        description="Which of the student's weights teach: the first ones, an exponential moving average, or the latest.",
    )
    decay: float = Field(0.999, ge=0, lt=1, description="Decay of the ema teacher, per step.")
    refresh_every: PositiveInt = Field(1, description="Steps between weight updates of the teacher (ema, latest).")
    reason_first: Reasons = None


METHODS: dict[str, type[Method]] = {"opd": Opd, "opsd": Opsd, "grpo": Grpo, "sft": Sft}
