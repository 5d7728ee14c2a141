"""The exact divergence over the whole vocabulary, from hidden states (ALGORITHM: "hidden"; arXiv 2606.23104).

Logits are V wide where hidden states are H wide, so they are made for a chunk of tokens at a time, on both sides, and the
gradients are taken while they are there: nothing of [N, V] is ever held, and nothing is projected twice.

Shape legend: N response tokens, V vocabulary entries that count, H hidden size (the teacher's may differ), `rows` of an
output head (at least V: heads are padded), C tokens of a chunk, R of them in a block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

CHUNK_ELEMENTS = {"cpu": 2**25, "cuda": 2**26}  # of [C, V]: fewer, and reading the head anew costs more than the product
BLOCK_ELEMENTS = 2**19  # of [R, V] on a CPU: what a softmax leaves is still in its cache for the divergence
GAP = 80.0  # nats; e^-80 is nothing beside 1, in double precision too


@dataclass(frozen=True)
class Head:
    """An output head: the logits of a hidden state h are scale · cap(weight · h + bias), cap(x) = soft_cap · tanh(x / soft_cap).

    The cap comes before the scale, as in vLLM's LogitsProcessor. soft_cap None: no cap.
    """

    weight: Tensor  # [rows, H]
    bias: Tensor | None = None  # [rows]
    scale: float = 1.0
    soft_cap: float | None = None


@dataclass(frozen=True)
class FullVocabulary:
    """All in nats, in float32 or wider; only `loss` has a gradient."""

    loss: Tensor  # scalar
    per_token: Tensor  # [N] the divergence
    student_logprobs: Tensor  # [N] of the targets
    teacher_logprobs: Tensor  # [N] of the targets


@dataclass(frozen=True)
class _Options:
    beta: float
    temperature: float
    entry_clip: float | None
    token_clip: float | None
    vocab_size: int
    chunk_tokens: int
    block_tokens: int
    differentiate: bool


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
) -> FullVocabulary:
    """Σ_n coefficients_n · d_n, where d_n is `generalized_jsd` of token n's logits under the two heads.

    student_hidden [N, H], teacher_hidden [N, H']: after the final norm. Each is multiplied in its head's precision, the
    logits and all that follows are in float32 or wider.
    targets [N]: token ids, whose log-probabilities are returned; they do not touch the loss.
    coefficients [N]: constants; each sample's weight over the batch size and its length.
    beta, temperature, entry_clip, token_clip: as in `generalized_jsd`.
    vocab_size: V; both heads are cut to their first V rows before the softmax.
    chunk_tokens: C. None: what is fastest on the device, 128 MiB of logits a side on a CPU and 256 MiB on a GPU.

    The gradients of student_hidden, and of the student head's weight and bias where they require one, are computed along
    with the value, summed in float32, and handed to autograd by the first backward; there can be no second one. Nothing
    flows to the teacher.

    Raises ValueError for shapes that do not fit, token ids outside the vocabulary and options outside their range.
    """
    N = len(student_hidden)
    _check_shapes(student_hidden, student, teacher_hidden, teacher, targets, coefficients, vocab_size)
    _check_options(beta, chunk_tokens, temperature=temperature, entry_clip=entry_clip, token_clip=token_clip)
    on_gpu = student_hidden.is_cuda
    most = chunk_tokens or max(1, CHUNK_ELEMENTS["cuda" if on_gpu else "cpu"] // vocab_size)
    chunk = math.ceil(N / math.ceil(N / most)) if N else 1  # equal chunks: a short last one costs as much as a whole one
    block = chunk if on_gpu else max(1, BLOCK_ELEMENTS // vocab_size)
    options = _Options(beta, temperature, entry_clip, token_clip, vocab_size, chunk, block, torch.is_grad_enabled())
    return FullVocabulary(
        *_ChunkedLoss.apply(
            student_hidden, student.weight, student.bias, student, teacher_hidden, teacher, targets, coefficients, options
        )
    )


class _ChunkedLoss(Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden_NH: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        student: Head,
        teacher_hidden_NH: Tensor,
        teacher: Head,
        targets_N: Tensor,
        coefficients_N: Tensor,
        options: _Options,
    ) -> tuple[Tensor, ...]:
        V, C = options.vocab_size, options.chunk_tokens
        weight_VH, teacher_VH = _for_products(weight[:V]), _for_products(teacher.weight[:V])
        wide = _wide(hidden_NH, weight)
        raw_CV = hidden_NH.new_empty(C, V, dtype=wide)
        teacher_raw_CV = teacher_hidden_NH.new_empty(C, V, dtype=_wide(teacher_hidden_NH, teacher.weight))
        wanted = [need and options.differentiate for need in ctx.needs_input_grad[:3]]
        grads = [
            torch.zeros_like(x, dtype=wide) if want and x is not None else None
            for x, want in zip((hidden_NH, weight, bias), wanted, strict=True)
        ]
        per_token_3N = hidden_NH.new_empty(3, len(hidden_NH), dtype=wide)
        for start in range(0, len(hidden_NH), C):
            rows = slice(start, start + C)
            hidden_CH = hidden_NH[rows].to(weight_VH.dtype)
            raw = _product(hidden_CH, weight_VH.T, out=raw_CV[: len(hidden_CH)])
            teacher_hidden_CH = teacher_hidden_NH[rows].to(teacher_VH.dtype)
            teacher_raw = _product(teacher_hidden_CH, teacher_VH.T, out=teacher_raw_CV[: len(hidden_CH)])
            tokens = zip(
                *(x.split(options.block_tokens) for x in (raw, teacher_raw, targets_N[rows], coefficients_N[rows])),
                per_token_3N[:, rows].split(options.block_tokens, dim=1),
                strict=True,
            )
            for x_RV, y_RV, targets_R, coefficients_R, out_3R in tokens:
                _block(x_RV, y_RV, targets_R, coefficients_R, student, teacher, options, any(wanted), out=out_3R)
            _add_gradients(raw, hidden_CH, weight_VH, rows, grads)
        per_token, student_logprobs, teacher_logprobs = per_token_3N.unbind()
        ctx.grads = grads
        ctx.mark_non_differentiable(per_token, student_logprobs, teacher_logprobs)
        return (coefficients_N.to(wide) * per_token).sum(), per_token, student_logprobs, teacher_logprobs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        # Given away, not kept: autograd then makes the head's gradient `.grad` itself instead of copying it.
        grads, ctx.grads = ctx.grads, None
        if grads is None:
            raise RuntimeError("full_vocabulary_loss allows one backward: its gradients are handed over, not kept")
        if loss_grad != 1:
            for grad in grads:
                if grad is not None:
                    grad.mul_(loss_grad)
        return (*grads, *[None] * 6)  # autograd casts each to its input's type


def _block(
    raw_RV: Tensor,
    teacher_raw_RV: Tensor,
    targets_R: Tensor,
    coefficients_R: Tensor,
    student: Head,
    teacher: Head,
    options: _Options,
    differentiate: bool,
    *,
    out: Tensor,
) -> None:
    """Fill out [3, R] with divergence and target log-probabilities; turn raw_RV (weight · h) into the loss's gradient."""
    logits = _logits(raw_RV, student)
    factor = student.scale / options.temperature
    log_p = torch.log_softmax(logits * factor, dim=-1)
    log_q = torch.log_softmax(_logits(teacher_raw_RV, teacher) * (teacher.scale / options.temperature), dim=-1)
    entries, slopes = _entries_and_slopes(log_p, log_q, options.beta)
    if options.entry_clip is not None:
        clipped = entries.clamp(0.0, options.entry_clip)
        slopes.masked_fill_(clipped != entries, 0.0)
        entries = clipped
    divergence = entries.sum(dim=-1)
    torch.stack([log_p.gather(1, targets_R[:, None])[:, 0], log_q.gather(1, targets_R[:, None])[:, 0]], out=out[1:])
    out[0] = divergence if options.token_clip is None else divergence.clamp(max=options.token_clip)
    if not differentiate:
        return
    per_token = coefficients_R.to(out.dtype) * factor
    if options.token_clip is not None:
        per_token = per_token.masked_fill(divergence > options.token_clip, 0.0)
    torch.addcmul(slopes, log_p.exp_(), slopes.sum(dim=-1, keepdim=True), value=-1, out=raw_RV).mul_(per_token[:, None])
    if student.soft_cap is not None:
        raw_RV.mul_(1 - (logits / student.soft_cap).square())


def _entries_and_slopes(log_p: Tensor, log_q: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """`generalized_jsd`'s entries of student p and teacher q, and their derivatives by log p; all [R, V].

    A token that either side rules out (a logit of -inf) has its limit here too.
    """
    if beta == 0:
        q = log_q.exp()
        return ((log_q - log_p) * q).masked_fill_(q == 0, 0.0), -q
    p = log_p.exp()
    if beta == 1:
        entries = ((log_p - log_q) * p).masked_fill_(p == 0, 0.0)
        return entries, entries + p
    # log(p / m) = -log(1 - beta + beta · q / p): from the ratio, for near p = q a difference of logarithms is mostly noise.
    gap = (log_q - log_p.clamp(min=torch.finfo(log_p.dtype).min)).clamp_(-GAP, GAP)
    log_p_over_m = gap.expm1().mul_(beta).log1p_().neg_().clamp_(max=-math.log1p(-beta))
    slopes = p.mul_(log_p_over_m).mul_(1 - beta)
    return torch.addcmul(slopes, gap.add_(log_p_over_m), log_q.exp(), value=beta), slopes


def _logits(raw: Tensor, head: Head) -> Tensor:
    """[R, V] products -> [R, V] logits, before the scale."""
    if head.bias is not None:
        raw = raw + head.bias[: raw.shape[-1]]
    return raw if head.soft_cap is None else torch.tanh(raw / head.soft_cap) * head.soft_cap


def _add_gradients(raw_grad_CV: Tensor, hidden_CH: Tensor, weight_VH: Tensor, rows: slice, grads: list[Tensor | None]) -> None:
    """Carry a chunk's gradient over to those of hidden states [N, H], weight [rows, H] and bias [rows], where wanted."""
    hidden_grad, weight_grad, bias_grad = grads
    V = raw_grad_CV.shape[1]
    narrow = raw_grad_CV.to(weight_VH.dtype)
    if hidden_grad is not None:
        _product(narrow, weight_VH, out=hidden_grad[rows])
    if weight_grad is not None:
        total = weight_grad[:V]
        if narrow.dtype == total.dtype:
            total.addmm_(narrow.T, hidden_CH)
        else:
            torch.addmm(total, narrow.T, hidden_CH, out_dtype=total.dtype, out=total)
    if bias_grad is not None:
        bias_grad[:V] += raw_grad_CV.sum(dim=0)


def _wide(*tensors: Tensor) -> torch.dtype:
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _for_products(weight: Tensor) -> Tensor:
    """bfloat16 stays where the device multiplies it into float32; float16 nowhere: gradients of 1e-8 would be 0."""
    return weight if weight.is_cuda and weight.dtype == torch.bfloat16 else weight.to(_wide(weight))


def _product(left: Tensor, right: Tensor, *, out: Tensor) -> Tensor:
    if left.dtype == out.dtype:
        return torch.mm(left, right, out=out)
    return torch.mm(left, right, out_dtype=out.dtype, out=out)


def _check_shapes(
    student_hidden: Tensor,
    student: Head,
    teacher_hidden: Tensor,
    teacher: Head,
    targets: Tensor,
    coefficients: Tensor,
    vocab_size: int,
) -> None:
    N = len(student_hidden)
    for name, hidden, head in (("student", student_hidden, student), ("teacher", teacher_hidden, teacher)):
        if hidden.ndim != 2 or len(hidden) != N or head.weight.ndim != 2 or hidden.shape[1] != head.weight.shape[1]:
            given = f"{tuple(hidden.shape)} and {tuple(head.weight.shape)}"
            raise ValueError(f"{name}: hidden states must be [{N}, H] and the head's weight [rows, H], got {given}")
        if head.bias is not None and head.bias.shape != head.weight.shape[:1]:
            raise ValueError(f"{name}: the head's bias must be [{len(head.weight)}], got {tuple(head.bias.shape)}")
        if not 0 < vocab_size <= len(head.weight):
            raise ValueError(f"vocab_size must lie in 1 to the {name} head's {len(head.weight)} rows, got {vocab_size}")
        if head.soft_cap is not None and not head.soft_cap > 0:
            raise ValueError(f"{name}: soft_cap must be positive or None for no cap, got {head.soft_cap}")
    if not targets.shape == coefficients.shape == (N,):
        shapes = f"{tuple(targets.shape)}, {tuple(coefficients.shape)}"
        raise ValueError(f"targets and coefficients must both be [{N}], got {shapes}")
    if N and not 0 <= int(targets.min()) <= int(targets.max()) < vocab_size:
        raise ValueError(f"targets must lie in 0 to vocab_size - 1 = {vocab_size - 1}")


def _check_options(beta: float, chunk_tokens: int | None, **positive: float | None) -> None:
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must lie in [0, 1] (0 forward KL, 1 reverse KL), got {beta}")
    if chunk_tokens is not None and chunk_tokens < 1:
        raise ValueError(f"chunk_tokens must be at least 1, or None for the device's default, got {chunk_tokens}")
    for name, value in positive.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
