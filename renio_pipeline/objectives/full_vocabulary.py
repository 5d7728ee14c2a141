"""The exact divergence over the whole vocabulary, from hidden states (arXiv 2606.23104).

Both sides' logits are computed for one chunk of tokens at a time (``chunked``): no [N, V] tensor exists at any time.

Shape legend: N response tokens, V vocabulary entries in use, H hidden size (the teacher's may differ), `rows` of an output
head (at least V, because heads are padded), C tokens of a chunk, R tokens of a block within it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from renio_pipeline.divergence import generalized_jsd
from renio_pipeline.objectives.chunk_sizes import FULL_VOCABULARY as CHUNK_ELEMENTS
from renio_pipeline.objectives.chunked import Work, block_rows, chunked_loss
from renio_pipeline.objectives.projection import Head, capped, factor, log_softmax, product

GAP = 80.0  # nats: e^-80 beside 1 is nothing, in double precision too


@dataclass(frozen=True)
class FullVocabulary:
    """All in nats, in float32 or wider; only `loss` has a gradient."""

    loss: Tensor  # scalar
    per_token: Tensor  # [N] the divergence
    student_logprobs: Tensor  # [N] of the targets
    teacher_logprobs: Tensor  # [N] of the targets


@dataclass(frozen=True)
class OneTeacher:
    """A teacher of a mixture of several."""

    hidden: Tensor  # [N, H'] after the final norm
    head: Head
    weight: float  # its share of the mixture


@dataclass(frozen=True)
class _Given:
    """Everything that is constant: all inputs except the student's hidden states and head."""

    student: Head
    teacher_hidden: Tensor  # [N, H']
    teacher: Head
    targets: Tensor  # [N]
    coefficients: Tensor  # [N]
    beta: float
    temperature: float
    entry_clip: float | None
    token_clip: float | None
    vocab_size: int
    weight: float
    others: Sequence[OneTeacher]

    @property
    def teachers(self) -> list[OneTeacher]:
        return [OneTeacher(self.teacher_hidden, self.teacher, self.weight), *self.others]

    def kernels(self) -> Any:
        """Module `fused_kernel` where it applies: on a GPU, one teacher, and heads without bias and soft cap; else None."""
        if self.others:
            return None
        heads = (self.student, self.teacher)
        wide = {factor(head.weight[:0]).dtype for head in heads} <= {torch.bfloat16, torch.float32}
        plain = all(head.weight.is_cuda and head.bias is None and head.soft_cap is None for head in heads)
        return _kernels() if wide and plain else None


def full_vocabulary_loss(
    student_hidden: Tensor,
    student: Head,
    teacher_hidden: Tensor,
    teacher: Head,
    targets: Tensor,
    coefficients: Tensor,
    *,
    beta: float,
    temperature: float = 1.0,
    entry_clip: float | None = None,
    token_clip: float | None = None,
    vocab_size: int,
    chunk_tokens: int | None = None,
    weight: float = 1.0,
    others: Sequence[OneTeacher] = (),
) -> FullVocabulary:
    """Σ_n coefficients_n · d_n, where d_n is the `generalized_jsd` of token n's logits under the two heads.

    student_hidden [N, H], teacher_hidden [N, H']: after the final norm. They are multiplied in their head's precision; the
    logits and everything after them are in float32 or wider.
    targets [N]: token ids whose log-probabilities are returned; they do not enter the loss.
    coefficients [N]: constants, such as the sample's weight over batch size and response length.
    beta, temperature, entry_clip, token_clip: as in `generalized_jsd`.
    vocab_size: V; both heads are cut to their first V rows before the softmax.
    weight, others: of a mixture of teachers, the share of the first one, and the others. Their probabilities are mixed, each
    over the first V entries: p_T = Σ_i weight_i · p_i. The weights sum to 1.
    chunk_tokens: C. None: 128 MiB of logits per side on a CPU, about the same on a GPU, which also holds the gradients of four
    chunks.

    The gradients of student_hidden and of the student head's weight and bias are computed together with the value, as in
    ``chunked.chunked_loss``: only one backward is possible.

    Raises ValueError for shapes that do not match, targets outside the vocabulary and options outside their range.
    """
    given = _Given(
        student, teacher_hidden, teacher, targets, coefficients, beta, temperature, entry_clip, token_clip, vocab_size,
        weight, others,
    )  # fmt: skip
    _check(student_hidden, given, chunk_tokens)
    kind = "cpu" if not student_hidden.is_cuda else "kernel" if given.kernels() else "cuda"
    most = chunk_tokens or max(1, CHUNK_ELEMENTS[kind] // (vocab_size * len(given.teachers)))
    factors = [factor(each.head.weight[:vocab_size]) for each in given.teachers]

    def fill(products_CV: Tensor, rows: slice, gradient_CV: Tensor | None, columns: list[Tensor]) -> None:
        _chunk(products_CV, factors, given, rows, gradient_CV, out=columns)

    work = Work(
        fill=fill, columns=3, coefficients=coefficients, vocab_size=vocab_size, chunk=most, apart=given.kernels() is not None
    )
    return FullVocabulary(*chunked_loss(student_hidden, student, work))


@cache
def _kernels() -> Any:
    """Module `fused_kernel`, or None where there is no Triton."""
    try:
        from renio_pipeline.objectives import fused_kernel
    except ImportError:
        return None
    return fused_kernel


def _chunk(
    products_CV: Tensor, factors: Sequence[Tensor], given: _Given, rows: slice, gradient_CV: Tensor | None, *, out: list[Tensor]
) -> None:
    """Fill the rows of `out` with the divergence and the targets' log-probabilities, and gradient_CV with the gradient with
    respect to products_CV (weight · h). The two may be the same tensor. None: no gradient; products_CV is overwritten.
    """
    theirs = [
        product(each.hidden[rows].to(teacher_VH.dtype), teacher_VH.T)
        for each, teacher_VH in zip(given.teachers, factors, strict=True)
    ]
    kernels = given.kernels()
    if kernels is None:
        assert gradient_CV is None or gradient_CV is products_CV
        _in_blocks(products_CV, theirs, given, rows, gradient_CV is not None, out=out)
        return
    (teacher_CV,) = theirs
    student_scale, teacher_scale = (head.scale / given.temperature for head in (given.student, given.teacher))
    kernels.divergence_and_gradient(
        products_CV,
        teacher_CV,
        given.targets[rows],
        given.coefficients[rows] * student_scale,
        scales=(student_scale, teacher_scale),
        beta=given.beta,
        entry_clip=given.entry_clip,
        token_clip=given.token_clip,
        gradient=gradient_CV,
        out=[column[rows] for column in out],
    )


def _in_blocks(
    products_CV: Tensor, theirs: Sequence[Tensor], given: _Given, rows: slice, differentiate: bool, *, out: list[Tensor]
) -> None:
    """`_chunk` in torch operations; the gradient replaces products_CV."""
    block = block_rows(products_CV)
    teachers_CV = zip(*(products.split(block) for products in theirs), strict=True)
    parts = (products_CV, given.targets[rows], given.coefficients[rows], *(column[rows] for column in out))
    blocks = zip(teachers_CV, *(p.split(block) for p in parts), strict=True)
    for teachers_RV, x_RV, targets_R, coefficients_R, divergence_R, *logprobs in blocks:
        log_p, log_q = log_softmax(x_RV, given.student, given.temperature), _mixture(teachers_RV, given)
        for logprobs_R, log in zip(logprobs, (log_p, log_q), strict=True):
            logprobs_R.copy_(log.gather(1, targets_R[:, None])[:, 0])
        entries, slopes = _entries_and_slopes(log_p, log_q, given.beta)
        if given.entry_clip is not None:
            clipped = entries.clamp(0.0, given.entry_clip)
            slopes.masked_fill_(clipped != entries, 0.0)
            entries = clipped
        divergence_R.copy_(entries.sum(dim=-1))
        factor_R = coefficients_R.to(x_RV.dtype) * (given.student.scale / given.temperature)
        capped_R = None
        if given.token_clip is not None:
            capped_R = divergence_R > given.token_clip
            divergence_R.clamp_(max=given.token_clip)
        if differentiate:
            cap = given.student.soft_cap
            bend = None if cap is None else 1 - (capped(x_RV, given.student) / cap).square()
            torch.addcmul(slopes, log_p.exp_(), slopes.sum(dim=-1, keepdim=True), value=-1, out=x_RV).mul_(factor_R[:, None])
            if bend is not None:
                x_RV.mul_(bend)
            if capped_R is not None:
                x_RV.masked_fill_(capped_R[:, None], 0.0)  # not a product: a divergence without bound has no gradient to scale


def _mixture(products: Sequence[Tensor], given: _Given) -> Tensor:
    """The teachers' log-probabilities [R, V]: of one as they are, of several mixed."""
    found = [log_softmax(each_RV, t.head, given.temperature) for each_RV, t in zip(products, given.teachers, strict=True)]
    if len(found) == 1:
        return found[0]
    return torch.logsumexp(torch.stack([log_q + math.log(t.weight) for log_q, t in zip(found, given.teachers, strict=True)]), 0)


def _entries_and_slopes(log_p: Tensor, log_q: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The entries of `generalized_jsd` for student p and teacher q, and their derivatives with respect to log p; all [R, V].

    A token that either side excludes (a logit of -inf) has its limit here too.
    """
    q = log_q.exp()
    if beta == 0:
        return (log_q - log_p).mul_(q).masked_fill_(q == 0, 0.0), q.neg_()
    p = log_p.exp()
    if beta == 1:
        entries = (log_p - log_q).mul_(p).masked_fill_(p == 0, 0.0)
        return entries, p.add_(entries)
    # log p/m = -log(1 - beta + beta · q/p), from the ratio: near p = q a difference of two logarithms would be noise.
    gap = (log_q - log_p.clamp(min=torch.finfo(log_p.dtype).min)).clamp_(-GAP, GAP)
    log_p_over_m = gap.expm1().mul_(beta).log1p_().neg_().clamp_(max=-math.log1p(-beta))
    slopes = p.mul_(log_p_over_m).mul_(1 - beta)
    return torch.addcmul(slopes, gap.add_(log_p_over_m), q, value=beta), slopes


def _check(hidden: Tensor, given: _Given, chunk_tokens: int | None) -> None:
    N, V = len(hidden), given.vocab_size
    sides = [("student", hidden, given.student), *(("teacher", each.hidden, each.head) for each in given.teachers)]
    for name, states, head in sides:
        rows, H = head.weight.shape
        if states.shape != (N, H):
            raise ValueError(f"{name}: hidden states must be [{N}, {H}], as its head is, got {tuple(states.shape)}")
        if head.bias is not None and head.bias.shape != (rows,):
            raise ValueError(f"{name}: the head's bias must be [{rows}], got {tuple(head.bias.shape)}")
        if not 0 < V <= rows:
            raise ValueError(f"vocab_size must lie in 1 to {rows}, the rows of the {name}'s head, got {V}")
        if head.soft_cap is not None and not head.soft_cap > 0:
            raise ValueError(f"{name}: soft_cap must be positive, or None for no cap, got {head.soft_cap}")
    if not given.targets.shape == given.coefficients.shape == (N,):
        shapes = f"{tuple(given.targets.shape)}, {tuple(given.coefficients.shape)}"
        raise ValueError(f"targets and coefficients must both be [{N}], got {shapes}")
    if N and not 0 <= int(given.targets.min()) <= int(given.targets.max()) < V:
        raise ValueError(f"targets must lie in [0, {V})")
    if chunk_tokens is not None and chunk_tokens < 1:
        raise ValueError(f"chunk_tokens must be at least 1, or None for the device's default, got {chunk_tokens}")
    keys = ("beta", "temperature", "entry_clip", "token_clip")
    generalized_jsd(*torch.zeros(2, 0, 1), **{key: getattr(given, key) for key in keys})  # no tokens: only its checks
