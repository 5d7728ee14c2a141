"""How much each response counts (ReNIO, arXiv 2606.23104).

A response weighs more, the more confident the student was in its own tokens than the teacher, at the few tokens where the two
differ strongly. Nothing here carries a gradient.

Shape legend: B sequences, T response tokens (right-padded), N samples of any kind.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from renio_pipeline.divergence import at_least_fp32
from renio_pipeline.types import SampleWeights

Normalization = Literal["batch_mean", "clamp", "ema", "none"]

HEAVIEST, LIGHTEST = 10.0, 0.1  # bounds on a weight (batch_mean) or a raw weight (clamp)
EMA_DECAY = 0.9


def pivotal_weights(
    student_logprobs: Tensor,
    teacher_logprobs: Tensor,
    mask: Tensor,
    *,
    threshold: float,
    clip: float,
    temperature: float = 1.0,
    normalization: str = "batch_mean",
    group_size: int | None = None,
    running_mean: float | None = None,
) -> SampleWeights:
    """ReNIO weights of a global batch: exp of the mean clipped log-ratio over the pivotal tokens, normalised.

    student_logprobs, teacher_logprobs [B, T]: nats, of the sampled tokens, at the distillation temperature.
    mask [B, T]: true on response tokens; values elsewhere are never read. An empty response has raw weight 1.
    threshold, clip: a token is pivotal when min(log p_S − log p_T, clip) ≥ threshold; clip must be above threshold.
    temperature: divides the mean log-ratio. It is the weights' own, not the distillation temperature.
    normalization: batch_mean (weights of mean 1, then a cap of 10), clamp (raw to [0.1, 10], then mean 1), ema (divided
    by a running mean), none.
    running_mean: the state of ema before this batch, None at the first batch; the result has the state after it.
    group_size: batch_mean and clamp normalise each group of this many consecutive sequences separately, to reproduce
    implementations that normalise per micro-batch; ema and none ignore it. None: the whole batch.

    Returns weights [B], raw weights [B] before normalisation, and pivotal_count [B] int64. They are float32, or float64
    where the input is. Raises ValueError for settings outside their range, for shapes that differ, for NaN on a response
    token, and for raw weights that overflow.
    """
    _check_settings(threshold, clip, temperature, normalization, group_size)
    ratio_BT = log_ratio(student_logprobs, teacher_logprobs, mask).clamp(max=clip)
    pivotal_BT = pivotal_mask(student_logprobs, teacher_logprobs, mask, threshold=threshold)
    count_B = pivotal_BT.sum(dim=1)
    mean_B = ratio_BT.masked_fill(~pivotal_BT, 0.0).sum(dim=1) / count_B.clamp(min=1)
    raw_B = (mean_B / temperature).exp()
    if raw_B.sum().isinf():
        raise ValueError(f"weights overflow: exp(clip / temperature) = exp({clip} / {temperature}); raise temperature")
    weights_B, running_mean = _normalise(raw_B, normalization, group_size, running_mean)
    return SampleWeights(weights=weights_B, raw=raw_B, pivotal_count=count_B, running_mean=running_mean)


def log_ratio(student_logprobs: Tensor, teacher_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Unclipped log p_S − log p_T of the sampled tokens, [B, T] in nats, without gradient, 0 outside the mask.

    student_logprobs, teacher_logprobs, mask [B, T]: as in `pivotal_weights`.

    Raises ValueError for shapes that differ, and for NaN on a response token, which would count as not pivotal.
    """
    if student_logprobs.ndim != 2 or not student_logprobs.shape == teacher_logprobs.shape == mask.shape:
        shapes = [tuple(x.shape) for x in (student_logprobs, teacher_logprobs, mask)]
        raise ValueError(f"student_logprobs, teacher_logprobs and mask must all be [B, T], got {shapes}")
    difference = at_least_fp32(student_logprobs.detach()) - at_least_fp32(teacher_logprobs.detach())
    ratio = difference.masked_fill(~mask.bool(), 0.0)
    if ratio.isnan().any():
        rows = ratio.isnan().any(dim=1).nonzero().flatten().tolist()
        raise ValueError(f"log p_S − log p_T is NaN on a response token of the sequences in rows {rows}")
    return ratio


def pivotal_mask(student_logprobs: Tensor, teacher_logprobs: Tensor, mask: Tensor, *, threshold: float) -> Tensor:
    """Which tokens are pivotal, [B, T] bool: response tokens where log p_S − log p_T ≥ threshold.

    The clip does not matter, because it lies above the threshold. Arguments and errors as in `log_ratio`.
    """
    return (log_ratio(student_logprobs, teacher_logprobs, mask) >= threshold) & mask.bool()


def effective_sample_size(weights: Tensor) -> float:
    """(Σw)² / Σw² of weights [N], in samples: N when all are equal, 1 when one weight is positive, 0 when all are 0."""
    w = weights.detach().double()
    square = float(w.square().sum())
    return float(w.sum()) ** 2 / square if square > 0 else 0.0


def _check_settings(threshold: float, clip: float, temperature: float, normalization: str, group_size: int | None) -> None:
    if not clip > threshold:
        why = "below it no token can be pivotal, and at it all pivotal tokens weigh the same"
        raise ValueError(f"clip must be above threshold, got clip {clip} and threshold {threshold}: {why}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, since log-ratios are divided by it, got {temperature}")
    if normalization not in get_args(Normalization):
        raise ValueError(f"normalization must be one of {', '.join(get_args(Normalization))}, got {normalization!r}")
    if group_size is not None and group_size < 1:
        raise ValueError(f"group_size must be a positive number of sequences, or None for the batch, got {group_size}")


def _normalise(
    raw: Tensor, normalization: str, group_size: int | None, running_mean: float | None
) -> tuple[Tensor, float | None]:
    """raw [B] -> weights [B], and the `ema` state after this batch. An empty batch leaves the state as it is."""
    if normalization == "none" or len(raw) == 0:
        return raw.clone(), running_mean
    if normalization == "ema":
        mean = float(raw.mean())
        running_mean = mean if running_mean is None else EMA_DECAY * running_mean + (1 - EMA_DECAY) * mean
        return raw / running_mean, running_mean
    bounded = raw.clamp(LIGHTEST, HEAVIEST) if normalization == "clamp" else raw
    size = group_size or len(raw)
    groups = bounded.tensor_split(tuple(range(size, len(raw), size)))
    weights = torch.cat([group / group.mean() for group in groups])
    return weights.clamp(max=HEAVIEST) if normalization == "batch_mean" else weights, running_mean
