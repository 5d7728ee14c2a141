"""From divergences per token to one number (arXiv 2606.23104).

L = (1/B) Σ_b w_b · (Σ_t f_bt · d_bt) / max(1, T_b), over the *global* batch, so that the loss and its gradient do not depend
on how the batch is split over micro-batches and ranks: the parts add up. The weights w are one a sample, the token factors f
one a token; without factors f is 1. The factors do not change the denominator T_b.

That is the mean over samples, the paper's. The mean over tokens, L = Σ_b w_b · (Σ_t f_bt · d_bt) / max(1, Σ_b T_b), lets a long
response count as much more as it is longer. Neither the weights nor the factors change its denominator.

Shape legend: B sequences, T response tokens (right-padded), T_b those of sequence b.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from renio_pipeline.divergence import at_least_fp32


def weighted_loss(
    per_token: Tensor,
    mask: Tensor,
    weights: Tensor,
    *,
    batch_size: int | None = None,
    batch_tokens: int | None = None,
    factors: Tensor | None = None,
) -> Tensor:
    """The weighted mean over sequences of each one's mean over its tokens, a scalar in the unit of `per_token`.

    With batch_tokens it is the weighted mean over tokens instead.

    per_token [B, T]: nats.
    mask [B, T]: true on response tokens; all others are ignored in value and gradient, whatever they hold.
    weights [B]: sample weights, held constant.
    factors [B, T]: token factors, held constant; values outside the mask are never read. None: all are 1.
    batch_size: sequences in the global batch, of which the given ones may be a part (also an empty part, whose loss is a
    differentiable zero). None: the given ones are the whole batch.
    batch_tokens: response tokens in the global batch, which divide the sum over tokens. None: the mean over samples.

    Computed in float32, or float64 where `per_token` is. Raises ValueError for shapes that do not match, for a batch_size below
    1 or below the number of sequences given, and for batch_tokens below the number of tokens given.
    """
    if factors is not None:
        if factors.shape != per_token.shape:
            shapes = f"{tuple(per_token.shape)}, {tuple(factors.shape)}"
            raise ValueError(f"per_token and factors must both be [B, T], got {shapes}")
        per_token = at_least_fp32(per_token).masked_fill(~mask.bool(), 0.0)  # before the product: 0 · NaN is NaN
        per_token = per_token * factors.detach().to(per_token.dtype).masked_fill(~mask.bool(), 0.0)
    means = per_sample_mean(per_token, mask)
    if weights.shape != means.shape:
        raise ValueError(f"weights must be one per sequence, {tuple(means.shape)}, got {tuple(weights.shape)}")
    if batch_tokens is not None:
        lengths = mask.bool().sum(dim=1)
        if batch_tokens < int(lengths.sum()):
            raise ValueError(f"batch_tokens must count the global batch: at least {int(lengths.sum())}, got {batch_tokens}")
        return (weights.detach().to(means.dtype) * lengths * means).sum() / max(1, batch_tokens)
    total = len(means) if batch_size is None else batch_size
    if total < max(1, len(means)):
        raise ValueError(f"batch_size must count the global batch: at least 1 and {len(means)} given here, got {total}")
    return (weights.detach().to(means.dtype) * means).sum() / total


def per_sample_mean(per_token: Tensor, mask: Tensor) -> Tensor:
    """Each sequence's mean over its response tokens, [B] in the unit of `per_token`; 0 for an empty response.

    per_token, mask [B, T]: as in `weighted_loss`. Raises ValueError for shapes that differ.
    """
    if per_token.ndim != 2 or per_token.shape != mask.shape:
        raise ValueError(f"per_token and mask must both be [B, T], got {tuple(per_token.shape)}, {tuple(mask.shape)}")
    mask = mask.bool()
    kept = at_least_fp32(per_token).masked_fill(~mask, 0.0)  # not a product: 0 · NaN is NaN
    return kept.sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def token_shares(
    weights: Sequence[float],
    lengths: Tensor,
    batch_size: int,
    factors: Tensor | None = None,
    *,
    batch_tokens: int | None = None,
) -> Tensor:
    """What each response token's divergence counts in `weighted_loss`: w_b · f_bt / (B · T_b), float32.

    weights, lengths [b]: of some sequences of the global batch, which has `batch_size` B.
    batch_tokens: as in `weighted_loss`; each token then counts w_b · f_bt / batch_tokens.
    factors [N]: of the response tokens, sequence after sequence. None: all are 1.

    Returns [N], sequence after sequence. Raises ValueError for factors that are not one a token.
    """
    denominators = batch_size * lengths.clamp(min=1) if batch_tokens is None else max(1, batch_tokens)
    shares = torch.tensor(weights, dtype=torch.float64) / denominators
    shares_N = torch.repeat_interleave(shares.float(), lengths)
    if factors is None:
        return shares_N
    if factors.shape != shares_N.shape:
        raise ValueError(f"factors must be one a response token, {tuple(shares_N.shape)}, got {tuple(factors.shape)}")
    return shares_N * factors.float()


def loss_magnitudes(
    per_token: Tensor,
    weights: Sequence[float],
    lengths: Tensor,
    until_pivotal: Sequence[int | None],
    *,
    by_token: bool = False,
) -> tuple[float, float]:
    """Σ_b |w_b| Σ_t |d_bt| / T_b of some sequences: their loss without token factors, and its part after pivotal tokens.

    per_token [N]: nats, of the response tokens, sequence after sequence. Signs are dropped, because the loss of sampled tokens
    has both.
    weights, lengths [b]: of the sequences.
    until_pivotal: of each sequence, its tokens up to and including the first pivotal one; None: all of them.
    by_token: the loss is a mean over tokens, in which nothing is divided by T_b.

    Returns both in nats. They add up over the parts of a batch.
    """
    kept_b = torch.tensor([n if until is None else until for until, n in zip(until_pivotal, lengths.tolist(), strict=True)])
    starts_N = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
    after_N = torch.arange(len(starts_N)) - starts_N >= torch.repeat_interleave(kept_b.long(), lengths)
    sizes_N = per_token.detach().abs().cpu().double()
    sizes_N = sizes_N * token_shares(weights, lengths, 1, batch_tokens=1 if by_token else None).abs()
    return float(sizes_N.sum()), float(sizes_N[after_N].sum())


def sampled_token_loss(
    student_logprobs: Tensor,
    teacher_logprobs: Tensor,
    *,
    behaviour_logprobs: Tensor | None = None,
    importance_clip: float | None = None,
) -> Tensor:
    """The policy gradient's loss (k1) per token, [B, T]: −ρ · A · log p_S, where A = log p_T − log p_S.

    ρ = min(p_S / p_behaviour, importance_clip), or 1 without a behaviour; ρ and A are held constant.

    student_logprobs (with gradient), teacher_logprobs [B, T]: nats, of the sampled tokens. Padding must be finite, because
    its gradient is 0 times A.
    behaviour_logprobs [B, T]: nats, by the older policy that sampled the tokens; requires importance_clip > 0.
    The truncated ratio corrects for how often the older policy sampled a token. It does not correct for prefixes that come
    from the older policy: a product of ratios along the response would have too much variance.

    It replaces a divergence, with the same weights and means. Its value has no meaning; its gradient, averaged over tokens
    sampled from the student, is the gradient of the reverse KL. Raises ValueError for shapes that differ, for behaviour
    log-probabilities without a clip or the reverse, and for a clip that is not positive.
    """
    student = at_least_fp32(student_logprobs)
    ratio = _truncated_ratio(student, behaviour_logprobs, importance_clip)
    if student_logprobs.shape != teacher_logprobs.shape:
        shapes = f"{tuple(student_logprobs.shape)}, {tuple(teacher_logprobs.shape)}"
        raise ValueError(f"student_logprobs and teacher_logprobs must both be [B, T], got {shapes}")
    advantage = (at_least_fp32(teacher_logprobs) - student).detach()
    return -advantage * student if ratio is None else -(ratio * advantage) * student


def _truncated_ratio(student: Tensor, behaviour: Tensor | None, clip: float | None) -> Tensor | None:
    """min(p_S / p_behaviour, clip) of each token, [B, T], without gradient; None without behaviour log-probabilities."""
    if behaviour is None and clip is None:
        return None
    if behaviour is None or clip is None or clip <= 0:
        given = "without" if behaviour is None else "with"
        raise ValueError(f"behaviour_logprobs goes with an importance_clip above 0, got {clip} {given} behaviour_logprobs")
    if behaviour.shape != student.shape:
        shapes = f"{tuple(student.shape)}, {tuple(behaviour.shape)}"
        raise ValueError(f"student_logprobs and behaviour_logprobs must both be [B, T], got {shapes}")
    return (student - at_least_fp32(behaviour)).detach().exp().clamp(max=clip)
