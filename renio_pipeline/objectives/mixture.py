"""The mixture of several teachers' top k, as one teacher's.

A teacher's payload gives the probabilities of its K likeliest tokens and of the sampled one, and so the mass t of all others
together. With the tail, a token that only another teacher names has, to this one, the student's share of that mass:
p(v) = t · p_S(v) / (mass of all others to the student). That is what the divergence from this teacher alone implies, whose
gradient divides the tail in these proportions, so that the gradient of the divergence from the mixture is exactly the weighted
mean of the gradients of the divergences from each teacher. Without the tail a teacher is its renormalised top K, and other
tokens have no probability to it.

Shape legend: R tokens, n teachers, K' = K+1 columns of a teacher's payload, C = n · K' columns of all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from renio_pipeline.divergence import TAIL_FLOOR, at_least_fp32, top_k_support


def mixed_top_k(
    token_ids: Sequence[Tensor], teacher_logprobs: Sequence[Tensor], weights: Sequence[float], student: Tensor, *, tail: bool
) -> tuple[Tensor, Tensor]:
    """The mixture's log-probabilities, [R, C] in nats, and the columns that count, [R, C] bool: each token once.

    token_ids, teacher_logprobs: of each teacher [R, K'], nats; column 0 is the sampled token.
    weights: of each teacher; they sum to 1.
    student: [R, C], nats, its log-probabilities of all these tokens, teacher after teacher. It is held constant.
    tail: whether a teacher's remaining mass counts, or its top K is renormalised.

    Columns that do not count hold −inf.
    """
    ids_RC = torch.cat(list(token_ids), dim=1)
    own_supports = [top_k_support(ids, tail=tail) for ids in token_ids]
    support_RC = _first_of_each(ids_RC, torch.cat(own_supports, dim=1))
    student_RC = at_least_fp32(student.detach())
    student_p_RC, total_RC = student_RC.exp(), torch.zeros_like(student_RC)
    width = ids_RC.shape[1] // len(token_ids)
    for i, (ids, logprobs, own, weight) in enumerate(zip(token_ids, teacher_logprobs, own_supports, weights, strict=True)):
        p = at_least_fp32(logprobs).to(student_RC.dtype).exp().masked_fill(~own, 0.0)
        mass_R1 = p.sum(dim=1, keepdim=True)
        if not tail:
            p = p / mass_R1.clamp(min=torch.finfo(p.dtype).tiny)
        found_RC, named_RC = _looked_up(ids_RC, ids.masked_fill(~own, -1), p)
        if tail:
            theirs_R1 = student_p_RC[:, i * width : (i + 1) * width].masked_fill(~own, 0.0).sum(dim=1, keepdim=True)
            rest_R1 = (1 - mass_R1).clamp(min=TAIL_FLOOR) / (1 - theirs_R1).clamp(min=TAIL_FLOOR)
            found_RC = torch.where(named_RC, found_RC, rest_R1 * student_p_RC)
        total_RC += weight * found_RC
    return total_RC.log().masked_fill(~support_RC, -math.inf), support_RC


def _looked_up(wanted: Tensor, ids: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The value of each wanted id, [R, C] (0 where there is none), and whether there is one.

    wanted [R, C] of at least 0; ids [R, K'], of which those of at least 0 are unique in their row; values [R, K'].
    """
    sorted_ids, order = ids.sort(dim=1)
    places = torch.searchsorted(sorted_ids, wanted.contiguous()).clamp(max=ids.shape[1] - 1)
    there = sorted_ids.gather(1, places) == wanted
    return values.gather(1, order).gather(1, places) * there, there


def _first_of_each(ids: Tensor, counts: Tensor) -> Tensor:
    """[R, C] bool: of the columns that count, the first one of each id [R, C]."""
    sorted_ids, order = ids.masked_fill(~counts, -1).sort(dim=1, stable=True)
    new = torch.ones_like(counts)
    new[:, 1:] = sorted_ids[:, 1:] != sorted_ids[:, :-1]
    return torch.zeros_like(counts).scatter(1, order, new) & counts
