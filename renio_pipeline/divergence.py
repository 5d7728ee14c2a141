"""Divergence of student and teacher at each token (arXiv 2606.23104).

Entries over the vocabulary, or over the teacher's top K, are computed and then summed. Everything is in nats, in float32 or
wider, and differentiable with respect to both sides. A token that either side excludes (a logit of -inf) has its limit:
0 · log 0 = 0.

Shape legend: V vocabulary entries, K the teacher's top-k, `...` any leading shape (usually B sequences by T tokens).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TAIL_FLOOR = 1e-7  # fp32 cannot tell a smaller remaining mass from none


def at_least_fp32(values: Tensor) -> Tensor:
    """`values` [...] in float32, or unchanged where their type is wider: half precision is too coarse for sums."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def generalized_jsd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    beta: float,
    temperature: float = 1.0,
    entry_clip: float | None = None,
    token_clip: float | None = None,
) -> Tensor:
    """Generalised Jensen-Shannon divergence over the whole vocabulary, [...] in nats.

    student_logits [..., V], teacher_logits [..., V']: where the widths differ (padded output heads), both are cut to
    the smaller one before the softmax.
    beta: 0 is the forward KL(teacher ‖ student), 1 the reverse KL(student ‖ teacher); between them both sides are compared
    with the mixture (1 − beta)·p_S + beta·p_T.
    temperature: divides both sides' logits.
    entry_clip: clamps every vocabulary entry to [0, entry_clip] before the sum; token_clip: caps the sum. None: none.

    Raises ValueError for leading shapes that differ, beta outside [0, 1], and bounds or a temperature that are not
    positive.
    """
    if student_logits.shape[:-1] != teacher_logits.shape[:-1]:
        given = f"student {tuple(student_logits.shape)}, teacher {tuple(teacher_logits.shape)}"
        raise ValueError(f"logits must have the same shape up to the vocabulary, got {given}")
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must lie in [0, 1] (0 forward KL, 1 reverse KL), got {beta}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, since logits are divided by it, got {temperature}")
    width = min(student_logits.shape[-1], teacher_logits.shape[-1])
    student = torch.log_softmax(at_least_fp32(student_logits[..., :width]) / temperature, dim=-1)
    teacher = torch.log_softmax(at_least_fp32(teacher_logits[..., :width]) / temperature, dim=-1)
    if beta == 0:
        entries = _relative_entropy(teacher, student)
    elif beta == 1:
        entries = _relative_entropy(student, teacher)
    else:
        middle = torch.logaddexp(_finite(student) + math.log1p(-beta), teacher + math.log(beta))
        entries = beta * _relative_entropy(teacher, middle) + (1 - beta) * _relative_entropy(student, middle)
    return _clipped_sum(entries, entry_clip, token_clip)


def top_k_forward_kl(
    student_logprobs: Tensor,
    teacher_logprobs: Tensor,
    support: Tensor,
    *,
    tail: bool = True,
    entry_clip: float | None = None,
    token_clip: float | None = None,
) -> Tensor:
    """Forward KL(teacher ‖ student) over the tokens in the teacher's payload, [...] in nats.

    student_logprobs, teacher_logprobs [..., K']: nats, of the same tokens, each normalised over the whole vocabulary.
    support [..., K'] bool: columns where it is False are left out, whatever they hold (see `top_k_support`).
    tail: True adds one entry for the mass of all other tokens, at least 1e-7 on each side; False renormalises both
    sides over the support, as the reference implementation does.
    entry_clip, token_clip: as in `generalized_jsd`; the tail is an entry like any other.

    Raises ValueError for shapes that differ and bounds that are not positive.
    """
    if not student_logprobs.shape == teacher_logprobs.shape == support.shape:
        shapes = [tuple(x.shape) for x in (student_logprobs, teacher_logprobs, support)]
        raise ValueError(f"student, teacher and support must have one shape, got {shapes}")
    outside = ~support.bool()
    close = _with_tail if tail else _renormalised
    student = close(at_least_fp32(student_logprobs).masked_fill(outside, -math.inf))
    teacher = close(at_least_fp32(teacher_logprobs).masked_fill(outside, -math.inf))
    return _clipped_sum(_relative_entropy(teacher, student), entry_clip, token_clip)


def top_k_support(token_ids: Tensor, *, tail: bool = True) -> Tensor:
    """Which columns of a top-k payload count, [..., K+1] bool, so that no token counts twice.

    token_ids [..., K+1]: column 0 is the sampled token, columns 1 to K the teacher's top K. Column 0 counts where it is
    not one of the K. Without a tail it never counts, because the reference implementation renormalises over the K alone.
    """
    support = torch.ones_like(token_ids, dtype=torch.bool)
    support[..., 0] = (token_ids[..., :1] != token_ids[..., 1:]).all(dim=-1) if tail else False
    return support


def own_tokens_divergence(student: Tensor, lacking: Tensor, teacher: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
    """From a teacher with another vocabulary: the part of tokens that both have, and the part of the others, [...] each.

    Shared, in nats: the forward KL(teacher ‖ student) over those of the teacher's K tokens that the student has too, both sides
    renormalised over these, times their share of the K tokens' probability.

    The others (ULD, arXiv 2402.12030): Σ_i |p_S(i) − p_T(i)| of the tokens that the other side lacks, each side's probabilities
    in falling order; the longer list is compared with zeros.

    student [..., K+M]: nats, of the teacher's K tokens, and of M more in falling order. lacking [..., M] bool: which of the M
    the teacher lacks; the rest do not count.
    teacher, shared [..., K]: its log-probabilities in nats, and whether the student has the token.
    """
    width = teacher.shape[-1]
    student = at_least_fp32(student)
    p = teacher.to(student.dtype).exp()
    share = (p * shared).sum(dim=-1) / p.sum(dim=-1).clamp(min=torch.finfo(p.dtype).tiny)
    exact = share * top_k_forward_kl(student[..., :width], teacher.to(student.dtype), shared, tail=False)
    theirs = p.masked_fill(shared, 0.0).sort(dim=-1, descending=True).values
    own = student[..., width:].exp() * lacking
    longer = max(theirs.shape[-1], own.shape[-1])
    own, theirs = (torch.nn.functional.pad(side, (0, longer - side.shape[-1])) for side in (own, theirs))
    return exact, (own - theirs).abs().sum(dim=-1)


def _relative_entropy(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Entries p·(log p − log q), [...]: 0 where p = 0, inf where only q = 0.

    Both are set as constants: left to arithmetic, inf − inf and 0 · inf would put NaN into the value, and a clip's zero
    gradient times inf would put it into the gradient.
    """
    p = log_p.exp()
    no_p, no_q = p == 0, log_q.isneginf()
    entries = p * (log_p - log_q).masked_fill(no_p | no_q, 0.0)
    return entries.masked_fill(no_q & ~no_p, math.inf)


def _clipped_sum(entries: Tensor, entry_clip: float | None, token_clip: float | None) -> Tensor:
    """[..., V] -> [...]. The gradient passes inside the bounds, ends included: an entry of exactly 0 still learns."""
    for name, bound in (("entry_clip", entry_clip), ("token_clip", token_clip)):
        if bound is not None and not bound > 0:
            raise ValueError(f"{name} must be positive (0 would leave no gradient) or None for no bound, got {bound}")
    if entry_clip is not None:
        entries = entries.clamp(0.0, entry_clip)
    total = entries.sum(dim=-1)
    return total if token_clip is None else total.clamp(max=token_clip)


def _with_tail(logprobs: Tensor) -> Tensor:
    """[..., K'] -> [..., K'+1]: the last column is the log of the mass that the others leave."""
    mass = -torch.expm1(torch.logsumexp(_finite(logprobs), dim=-1, keepdim=True))
    return torch.cat([logprobs, mass.clamp(min=TAIL_FLOOR).log()], dim=-1)


def _renormalised(logprobs: Tensor) -> Tensor:
    """[..., K'] -> [..., K']; a side without any mass on the support stays at -inf."""
    return logprobs - torch.logsumexp(_finite(logprobs), dim=-1, keepdim=True)


def _finite(logprobs: Tensor) -> Tensor:
    """-inf becomes the lowest finite number: exp of it is still 0, but logsumexp over nothing else has a gradient."""
    return logprobs.clamp(min=torch.finfo(logprobs.dtype).min)
