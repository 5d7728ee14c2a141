"""The policy gradient on rewards, per token: GRPO's clipped importance ratio (arXiv 2402.03300), and the divergence from a
reference.

Shape legend: T response tokens, of one sequence or of several; any further leading axes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from renio_pipeline.divergence import at_least_fp32


def clipped_policy_loss(
    student_logprobs: Tensor, behaviour_logprobs: Tensor, advantages: Tensor, *, low: float, high: float
) -> Tensor:
    """−min(ρ · A, clamp(ρ, 1 − low, 1 + high) · A), where ρ = p_S / p_behaviour: [..., T].

    student_logprobs (with gradient), behaviour_logprobs [..., T]: nats, of the sampled tokens; the behaviour is the policy that
    sampled them, held constant.
    advantages [..., T]: of each token's response, held constant.

    At ρ = 1 its gradient is −A times that of log p_S. Raises ValueError for shapes that differ.
    """
    if not student_logprobs.shape == behaviour_logprobs.shape == advantages.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (student_logprobs, behaviour_logprobs, advantages))
        raise ValueError(f"student_logprobs, behaviour_logprobs and advantages must have one shape, got {shapes}")
    student, advantages = at_least_fp32(student_logprobs), at_least_fp32(advantages.detach())
    ratio = (student - at_least_fp32(behaviour_logprobs.detach())).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def is_clipped(student_logprobs: Tensor, behaviour_logprobs: Tensor, advantages: Tensor, *, low: float, high: float) -> Tensor:
    """Where the loss above has no gradient because its ratio is out of bounds: [..., T] bool. Arguments as there."""
    ratio = (at_least_fp32(student_logprobs.detach()) - at_least_fp32(behaviour_logprobs)).exp()
    return ((ratio < 1 - low) & (advantages < 0)) | ((ratio > 1 + high) & (advantages > 0))


def reference_divergence(student_logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The estimator k3 of KL(student ‖ reference) from tokens that the student sampled: exp(Δ) − Δ − 1, [..., T] in nats.

    Δ = log p_reference − log p_S, with gradient in the latter. It is never negative, and has the divergence as its mean
    (J. Schulman, "Approximating KL Divergence", 2020).
    """
    difference = at_least_fp32(reference_logprobs.detach()) - at_least_fp32(student_logprobs)
    return difference.exp() - difference - 1
