"""The exact divergence and its gradient from logits in one Triton kernel, which `full_vocabulary` uses on a GPU.

With torch operations every step reads and writes [C, V] once more. This kernel reads the logits three times (for normalisers,
sums and gradient) and writes the gradient once. Triton is part of torch's CUDA builds; without it, importing this module fails.

Shape legend: C tokens, V vocabulary entries; one program of the kernel processes one token's entries, a BLOCK at a time.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

BLOCK, WARPS = 4096, 8


def divergence_and_gradient(
    student_CV: Tensor,
    teacher_CV: Tensor,
    targets: Tensor,
    factors: Tensor,
    *,
    scales: tuple[float, float],
    beta: float,
    entry_clip: float | None,
    token_clip: float | None,
    gradient: Tensor | None,
    out: list[Tensor],
) -> None:
    """Fill `out` with divergence and the target's log-probabilities, each [C] float32, and `gradient` with the loss's.

    student_CV, teacher_CV: float32, contiguous; logits but for the factor in `scales`, of student and teacher.
    targets [C]: token ids. factors [C]: what the divergence's derivative by the student's scaled logit is multiplied with.
    gradient [C, V]: float32 (student_CV itself will do) or bfloat16; None: not wanted.
    """
    C, V = student_CV.shape
    assert all(x.is_contiguous() for x in (student_CV, teacher_CV, gradient) if x is not None)
    if C == 0:
        return
    _kernel[(C,)](
        student_CV,
        teacher_CV,
        student_CV if gradient is None else gradient,
        targets,
        factors.float(),
        *out,
        V,
        *scales,
        math.inf if entry_clip is None else entry_clip,
        math.inf if token_clip is None else token_clip,
        beta,
        -math.log1p(-beta) if beta < 1 else 0.0,
        FORWARD=beta == 0,
        REVERSE=beta == 1,
        ENTRY_CLIP=entry_clip is not None,
        GRADIENT=gradient is not None,
        BLOCK=min(BLOCK, triton.next_power_of_2(V)),
        num_warps=WARPS,
    )


@triton.jit
def _expm1(x):  # type: ignore[no-untyped-def]
    """exp(x) - 1, near 0 by its series: a difference would leave noise there. Factors, since a division costs many of them."""
    series = 1 / 720 + x * (1 / 5040 + x * (1 / 40320))
    series = x * (1 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x * series)))))
    return tl.where(tl.abs(x) < 0.5, series, tl.exp(x) - 1)


@triton.jit
def _log1p(x):  # type: ignore[no-untyped-def]
    """log(1 + x), near 0 by the series of 2 · artanh(x / (2 + x))."""
    w = x / (2 + x)
    square = w * w
    series = 2 * w * (1 + square * (1 / 3 + square * (1 / 5 + square * (1 / 7 + square * (1 / 9)))))
    return tl.where(tl.abs(x) < 0.25, series, tl.log(1 + x))


@triton.jit  # type: ignore[untyped-decorator]
def _entries_and_slopes(  # type: ignore[no-untyped-def]
    log_p, log_q, beta, most, FORWARD: tl.constexpr, REVERSE: tl.constexpr
):
    """As in `full_vocabulary`: entries, and their derivatives by log p."""
    p, q = tl.exp(log_p), tl.exp(log_q)
    if FORWARD:
        entries = tl.where(q == 0, 0.0, (log_q - log_p) * q)
        slopes = -q
    elif REVERSE:
        entries = tl.where(p == 0, 0.0, (log_p - log_q) * p)
        slopes = p + entries
    else:
        gap = log_q - tl.where(log_p < -3.4e38, -3.4e38, log_p)
        gap = tl.where(gap > 80.0, 80.0, tl.where(gap < -80.0, -80.0, gap))
        log_p_over_m = -_log1p(_expm1(gap) * beta)
        log_p_over_m = tl.where(log_p_over_m > most, most, log_p_over_m)
        slopes = p * log_p_over_m * (1 - beta)
        entries = slopes + (gap + log_p_over_m) * q * beta
    return p, entries, slopes


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    student,
    teacher,
    gradient,
    targets,
    factors,
    divergences,
    student_logprobs,
    teacher_logprobs,
    V,
    student_scale,
    teacher_scale,
    entry_clip,
    token_clip,
    beta,
    most,
    FORWARD: tl.constexpr,
    REVERSE: tl.constexpr,
    ENTRY_CLIP: tl.constexpr,
    GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One token. Comparisons are written so that NaN passes through them: the loss must show it."""
    token = tl.program_id(0).to(tl.int64)
    student += token * V
    teacher += token * V
    x_most, x_sum, y_most, y_sum = -3.4e38, 0.0, -3.4e38, 0.0
    for start in range(0, V, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(student + at, mask=at < V, other=-float("inf")) * student_scale
        y = tl.load(teacher + at, mask=at < V, other=-float("inf")) * teacher_scale
        x_new, y_new = tl.maximum(x_most, tl.max(x, 0)), tl.maximum(y_most, tl.max(y, 0))
        x_sum = x_sum * tl.exp(x_most - x_new) + tl.sum(tl.exp(x - x_new), 0)
        y_sum = y_sum * tl.exp(y_most - y_new) + tl.sum(tl.exp(y - y_new), 0)
        x_most, y_most = x_new, y_new
    x_log, y_log = tl.log(x_sum), tl.log(y_sum)
    divergence, slope = 0.0, 0.0
    for start in range(0, V, BLOCK):
        at = start + tl.arange(0, BLOCK)
        log_p = tl.load(student + at, mask=at < V, other=-float("inf")) * student_scale - x_most - x_log
        log_q = tl.load(teacher + at, mask=at < V, other=-float("inf")) * teacher_scale - y_most - y_log
        p, entries, slopes = _entries_and_slopes(log_p, log_q, beta, most, FORWARD, REVERSE)
        if ENTRY_CLIP:
            slopes = tl.where((entries > entry_clip) | (entries < 0), 0.0, slopes)
            entries = tl.where(entries > entry_clip, entry_clip, tl.where(entries < 0, 0.0, entries))
        divergence += tl.sum(tl.where(at < V, entries, 0.0), 0)
        slope += tl.sum(tl.where(at < V, slopes, 0.0), 0)
    capped = divergence > token_clip
    target = tl.load(targets + token)
    tl.store(divergences + token, tl.where(capped, token_clip, divergence))
    tl.store(student_logprobs + token, tl.load(student + target) * student_scale - x_most - x_log)
    tl.store(teacher_logprobs + token, tl.load(teacher + target) * teacher_scale - y_most - y_log)
    if GRADIENT:
        gradient += token * V
        factor = tl.load(factors + token)
        for start in range(0, V, BLOCK):
            at = start + tl.arange(0, BLOCK)
            log_p = tl.load(student + at, mask=at < V, other=-float("inf")) * student_scale - x_most - x_log
            log_q = tl.load(teacher + at, mask=at < V, other=-float("inf")) * teacher_scale - y_most - y_log
            p, entries, slopes = _entries_and_slopes(log_p, log_q, beta, most, FORWARD, REVERSE)
            if ENTRY_CLIP:
                slopes = tl.where((entries > entry_clip) | (entries < 0), 0.0, slopes)
            found = tl.where(capped, 0.0, (slopes - p * slope) * factor)
            tl.store(gradient + at, found.to(gradient.dtype.element_ty), mask=at < V)
