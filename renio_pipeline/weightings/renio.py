"""The paper's weights (arXiv 2606.23104)."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from renio_pipeline.config.schema import Pivotal
from renio_pipeline.weightings.base import ScoredBatch, State, Weighting, Weights
from renio_pipeline.weightings.token_factors import AFTER_PIVOTAL, dimmed_after_pivotal


class PivotalWeights(Weighting):
    """What the weightings that have ReNIO's sample weights share."""

    threshold: float = Field(
        0.8, description="A token is pivotal when its clipped log-ratio log p_S − log p_T is at least this (nats)."
    )
    clip: float = Field(2.5, description="Upper bound on log-ratios (nats); must exceed threshold.")
    temperature: PositiveFloat = Field(
        1.0, description="Weight temperature: the raw weight is exp(mean pivotal log-ratio / temperature)."
    )
    normalization: Literal["batch_mean", "clamp", "ema", "none"] = Field(
        "batch_mean",
        description="Divide raw weights by the batch mean and cap at 10; clamp them first; divide by a running mean; or not.",
    )
    group_size: PositiveInt | None = Field(
        None, description="Normalise in groups of this size, as the reference implementation does; null: the whole batch."
    )

    @model_validator(mode="after")
    def _weights_that_say_something(self) -> Self:
        self.pivotal.check("weighting")
        return self

    @property
    def pivotal(self) -> Pivotal:
        return Pivotal(threshold=self.threshold, clip=self.clip, temperature=self.temperature)

    def check(self, config: Any) -> None:
        if config.batch_size % (self.group_size or 1):
            raise ValueError(f"weighting.group_size ({self.group_size}) must divide batch_size ({config.batch_size})")

    def weighed(self, batch: ScoredBatch, state: State, *, strength: float, after_pivotal: float) -> Weights:
        """The weights with λ and γ. State: ``{"running_mean": float}`` with the normalization ``ema``, None otherwise."""
        from renio_pipeline.weighting import pivotal_weights

        found = pivotal_weights(
            *batch.padded(),
            threshold=self.threshold,
            clip=self.clip,
            temperature=self.temperature,
            normalization=self.normalization,
            group_size=self.group_size,
            running_mean=state["running_mean"] if state else None,
        )
        after = None if found.running_mean is None else {"running_mean": found.running_mean}
        weights = found.weights.numpy()
        if strength != 1:  # a convex combination with 1: never negative, and of mean 1 where the weights are
            weights = 1 + strength * (weights - 1)
        return Weights(
            weights=weights,
            token_factors=dimmed_after_pivotal(batch, self.threshold, after_pivotal),
            state=after,
        )


class Renio(PivotalWeights):
    """ReNIO sample weights (arXiv 2606.23104): exp of the mean clipped log-ratio over the pivotal tokens, normalised.

    With ``strength`` below 1 they lie between these and 1; with ``after_pivotal`` below 1 there are token factors too.
    State: ``{"running_mean": float}`` with the normalization ``ema``, None otherwise.
    """

    type: Literal["renio"] = "renio"
    strength: float = Field(
        1.0, ge=0, le=1, description="λ of 1 + λ (w − 1), where w is the weight: 1: as in the paper, 0: uniform weights."
    )
    after_pivotal: float = Field(1.0, ge=0, le=1, description=AFTER_PIVOTAL)

    def weigh(self, batch: ScoredBatch, state: State) -> Weights:
        return self.weighed(batch, state, strength=self.strength, after_pivotal=self.after_pivotal)
