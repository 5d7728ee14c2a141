"""What counts as a pivotal token, and what else metrics look at."""

from __future__ import annotations

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
)

from renio_pipeline.config.schema.values import Section


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
    """What metrics, samples and reports count as a pivotal token, and how they compare student and teacher.

    The weights do not depend on it.
    """

    threshold: float | None = Field(
        None,
        description="Log-ratio (nats) from which a token is reported as pivotal; null: the weighting's own threshold, or 0.8.",
    )
    clip: float | None = Field(
        None,
        description="Upper bound (nats) on log-ratios in the raw weight that is reported; null: the weighting's own, or 2.5.",
    )
    top_k: PositiveInt = Field(
        16,
        description="k of the metrics `topk/...`: how many likeliest tokens of student and teacher are compared; at most those "
        "that the teachers send.",
    )
    share: float = Field(
        0.03125,
        ge=0,
        le=1,
        description="Share of the response tokens at which `topk/...` and `entropy/...` are measured; 0: none, 1: all.",
    )
