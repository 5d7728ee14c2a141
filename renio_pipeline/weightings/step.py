"""One step's weighting: the weights of its global batch, checked, and the diagnostics that go with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from renio_pipeline.config.schema import Pivotal
from renio_pipeline.weightings.base import ScoredBatch, State, Weighting, Weights
from renio_pipeline.weightings.diagnostics import pivotal_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """A step's weights, in the order of the samples given. B samples, T_b response tokens of each."""

    weights: np.ndarray  # [B] float32
    token_factors: list[np.ndarray] | None = None  # of each sample [T_b] float32; None: all are 1
    state: State = None  # of the weighting, after this batch
    raw: np.ndarray  # [B] float32, see ``diagnostics.PivotalTokens``
    pivotal: list[np.ndarray]  # of each sample, int32 positions of its pivotal tokens
    metrics: dict[str, float]


def weigh_step(weighting: Weighting, pivotal: Pivotal, batch: ScoredBatch, state: State) -> Weighed:
    """Weigh a step's batch.

    What the student did not write (``off_policy``) has the weight 1 and no token factors, and takes no part in how the others
    are normalised: these weigh what they would in a batch of their own, and the share of the batch that is off-policy is its
    share of the weight. ReNIO's raw weight is defined for such a response too, and is shown with it. But it says how sure the
    student was of its own steps; on a text that it did not write, large values mark what the teacher finds unlikely.

    Args:
        pivotal: what the diagnostics count as a pivotal token.
        state: what the weighting returned at the step before; None at the first.

    Raises:
        ValueError: the weighting returned something that is no ``Weights`` of this batch; names the weighting.
        OwnClassError: a weighting of the user's own raised an exception; names its key.
    """
    from renio_pipeline.weighting import effective_sample_size

    batch = replace(batch, pivotal=pivotal)
    own = [i for i in range(len(batch)) if not (batch.off_policy and batch.off_policy[i])]
    by_student = batch if len(own) == len(batch) else batch.part(own)
    weights, factors, after = np.ones(len(batch), np.float32), None, state
    if own:
        with weighting.guarded("weigh"):
            found = weighting.weigh(by_student, state)
        given, of_tokens, after = _checked(found, by_student, f"weighting {weighting.label}")
        weights[own] = given
        if of_tokens is not None:
            factors = [np.ones(int(n), np.float32) for n in batch.lengths]
            for i, each in zip(own, of_tokens, strict=True):
                factors[i] = each
    shown = pivotal_tokens(batch, pivotal)
    ratios = shown if by_student is batch else pivotal_tokens(by_student, pivotal)
    import torch

    metrics = {
        "weights/max": float(weights.max()),
        "weights/min": float(weights.min()),
        "weights/effective_sample_size": effective_sample_size(torch.from_numpy(weights)),
        **_factor_metrics(weights, factors, batch),
        **weighting.state_metrics(after),
        **ratios.metrics,
    }
    return Weighed(weights=weights, token_factors=factors, state=after, raw=shown.raw, pivotal=shown.positions, metrics=metrics)


def _factor_metrics(weights: np.ndarray, factors: list[np.ndarray] | None, batch: ScoredBatch) -> dict[str, float]:
    """What the token factors leave of the weights of the samples that have tokens; nothing where these have no weight."""
    written = batch.lengths > 0
    total = float(weights[written].sum(dtype=np.float64))
    if total <= 0:
        return {}
    means = np.array([1.0 if factors is None else factors[b].mean(dtype=np.float64) for b in np.flatnonzero(written)])
    return {"weights/token_factor_mean": float(weights[written].astype(np.float64) @ means) / total}


def _checked(found: Weights, batch: ScoredBatch, who: str) -> tuple[np.ndarray, list[np.ndarray] | None, State]:
    if not isinstance(found, Weights):
        raise ValueError(f"{who}: weigh must return a renio_pipeline.weightings.Weights, got {type(found).__name__}")
    weights = _numbers(found.weights, f"{who}: weights")
    if weights.shape != (len(batch),) or not np.isfinite(weights).all():
        raise ValueError(f"{who}: weights must be {len(batch)} finite numbers, one a sample, got {_told(weights)}")
    return weights, _factors(found.token_factors, batch, who), _state(found.state, who)


def _factors(given: Sequence[np.ndarray] | None, batch: ScoredBatch, who: str) -> list[np.ndarray] | None:
    if given is None:
        return None
    if not isinstance(given, Sequence | np.ndarray) or len(given) != len(batch):
        got = len(given) if isinstance(given, Sequence | np.ndarray) else type(given).__name__
        raise ValueError(f"{who}: token_factors must be an array for each of {len(batch)} samples, got {got}")
    factors = [_numbers(each, f"{who}: token_factors") for each in given]
    for sample_id, each, tokens in zip(batch.sample_ids, factors, batch.lengths, strict=True):
        if each.shape != (tokens,) or not np.isfinite(each).all():
            raise ValueError(
                f"{who}: token_factors of sample {sample_id} must be {tokens} finite numbers, one a response token, got "
                f"{_told(each)}"
            )
    return factors


def _numbers(given: object, what: str) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is refused
            return np.asarray(given).astype(np.float32, casting="same_kind")
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor that has a gradient
        raise ValueError(f"{what} must be finite real numbers, got {type(given).__name__}: {error}") from None


def _state(given: State, who: str) -> State:
    """As a checkpoint would give it back, so that a resumed run sees what one that was not interrupted sees."""
    try:
        return json.loads(json.dumps(given, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{who}: its state must be what JSON can hold, without NaN and infinities: {error}") from None


def _told(values: np.ndarray) -> str:
    return f"shape {values.shape}" + ("" if np.isfinite(values).all() else " with values that are not finite")
