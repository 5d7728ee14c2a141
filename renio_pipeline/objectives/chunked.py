"""A loss on the student's logits, computed with its gradients one chunk of tokens at a time.

Logits are V wide where hidden states are H wide. They are computed for a chunk of tokens, and its gradients with them, before
the next chunk: no [N, V] tensor exists at any time, and nothing is projected twice.

Shapes as in ``projection``; G tokens of a group of chunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from renio_pipeline.objectives.projection import Head, factor, product

GROUP = 4  # chunks whose gradients are left in bfloat16: the weight's, float32, is read and written once for all
BLOCK_ELEMENTS = 2**23  # of [R, V] on a CPU: with fewer, its threads wait for each other, long where they share their cores

# The products of rows `slice` of N, [C, V]; where their gradient goes, which may be these themselves (None: it is not wanted,
# and the products may be left as anything); the columns, of which those rows are to be filled.
Fill = Callable[[Tensor, slice, Tensor | None, list[Tensor]], None]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What to compute from the products weight · h."""

    fill: Fill
    columns: int  # of [N], the first one each token's loss
    coefficients: Tensor  # [N] constants: the loss is their product with that column
    vocab_size: int
    chunk: int  # C, at most
    apart: bool  # whether bfloat16 gradients are held by the group


def chunked_loss(hidden: Tensor, head: Head, work: Work) -> tuple[Tensor, ...]:
    """The loss, a scalar, and the columns, [N] each, without gradient.

    The gradients of hidden [N, H] and of the head's weight and bias are computed together with the value wherever they are
    required, and accumulated in float32 or wider. The first backward hands them over; a second one raises RuntimeError.
    """
    found: tuple[Tensor, ...] = _Chunked.apply(hidden, head.weight, head.bias, work, torch.is_grad_enabled())
    return found


class _Chunked(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight: Tensor, bias: Tensor | None, work: Work, differentiable: bool
    ) -> tuple[Tensor, ...]:
        V, N = work.vocab_size, len(hidden_NH)
        chunks = max(1, math.ceil(N / work.chunk))
        chunk = max(1, math.ceil(N / chunks))  # all equal: a short last one would read the whole head too
        wide = torch.promote_types(weight.dtype, torch.float32)
        wanted = [needed and differentiable for needed in ctx.needs_input_grad[:3]]
        grads = [
            torch.zeros_like(x, dtype=wide) if want and x is not None else None
            for x, want in zip((hidden_NH, weight, bias), wanted, strict=True)
        ]
        weight_VH = factor(weight[:V])
        columns = [hidden_NH.new_empty(N, dtype=wide) for _ in range(work.columns)]
        apart = work.apart and weight_VH.dtype == torch.bfloat16 and any(wanted)
        for group in slices(0, N, chunk * GROUP if apart else chunk):
            hidden_GH = hidden_NH[group].to(weight_VH.dtype)
            grad_GV = weight_VH.new_empty(len(hidden_GH), V) if apart else None
            for rows in slices(group.start, group.stop, chunk):
                within = slice(rows.start - group.start, rows.stop - group.start)
                products_CV = product(hidden_GH[within], weight_VH.T)
                in_place = products_CV if any(wanted) else None
                gradient_CV = in_place if grad_GV is None else grad_GV[within]
                work.fill(products_CV, rows, gradient_CV, columns)
                del products_CV, in_place  # before the next chunk's are made
            if gradient_CV is not None:
                _add_gradients(gradient_CV if grad_GV is None else grad_GV, hidden_GH, weight_VH, group, grads)
            del gradient_CV, grad_GV
        ctx.grads = grads
        ctx.mark_non_differentiable(*columns)
        return (work.coefficients.to(wide) * columns[0]).sum(), *columns

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, None  # no second reference: autograd makes the tensor itself `.grad`, without a copy
        if grads is None:
            raise RuntimeError("this loss allows one backward: it hands its gradients over and keeps no copy")
        if loss_grad != 1:
            for grad in grads:
                if grad is not None:
                    grad.mul_(loss_grad)
        return (*grads, None, None)  # autograd casts each to its input's type


def slices(start: int, stop: int, step: int) -> list[slice]:
    return [slice(at, min(at + step, stop)) for at in range(start, stop, step)]


def block_rows(products_CV: Tensor) -> int:
    """Rows of [R, V] to work on at a time. On a CPU few, so that temporaries stay small and partly in its cache."""
    C, V = products_CV.shape
    return max(1, C if products_CV.is_cuda else BLOCK_ELEMENTS // V)


def _add_gradients(grad_CV: Tensor, hidden_CH: Tensor, weight_VH: Tensor, rows: slice, grads: list[Tensor | None]) -> None:
    """Add a chunk's part to the gradients of hidden states [N, H], weight [rows, H] and bias [rows], where they are wanted."""
    hidden_grad, weight_grad, bias_grad = grads
    V = grad_CV.shape[1]
    if bias_grad is not None:
        bias_grad[:V] += grad_CV.sum(dim=0)
    if hidden_grad is None and weight_grad is None:
        return
    grad_CV = grad_CV.to(weight_VH.dtype)
    if hidden_grad is not None:
        hidden_grad[rows] = product(grad_CV, weight_VH)
    if weight_grad is not None and weight_VH.dtype == torch.bfloat16:
        torch.addmm(weight_grad[:V], grad_CV.T, hidden_CH, out_dtype=weight_grad.dtype, out=weight_grad[:V])
    elif weight_grad is not None:
        weight_grad[:V].addmm_(grad_CV.T, hidden_CH)
