"""A loss on a few of the student's log-probabilities at each token, from hidden states.

The top-k divergence and the sampled-token loss are of this kind. As with the exact divergence (``full_vocabulary``), no [N, V]
tensor exists at any time. Shapes as in ``projection``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from renio_pipeline.objectives.chunk_sizes import TOKEN_LOSS as CHUNK_ELEMENTS
from renio_pipeline.objectives.chunked import Work, block_rows, chunked_loss, slices
from renio_pipeline.objectives.projection import Head, capped, log_softmax

More = Callable[[Tensor, slice], Tensor]  # [R, V] log-probabilities of rows `slice` of N -> [R, M] ids
PerToken = Callable[[Tensor, slice], Tensor]  # [R, K] log-probabilities of rows `slice` of N -> [R], differentiable


@dataclass(frozen=True)
class TokenLoss:
    """All in float32 or wider; only `loss` has a gradient."""

    loss: Tensor  # scalar
    per_token: Tensor  # [N]
    student_logprobs: Tensor  # [N] of each token's first id


def token_loss(
    hidden: Tensor,
    head: Head,
    ids: Tensor,
    coefficients: Tensor,
    per_token: PerToken,
    *,
    temperature: float = 1.0,
    vocab_size: int,
    chunk_tokens: int | None = None,
    more: More | None = None,
) -> TokenLoss:
    """Σ_n coefficients_n · per_token(log p of ids_n).

    hidden [N, H]: after the final norm.
    ids [N, K]: the tokens whose log-probabilities, over the first `vocab_size` entries, the loss depends on. A token may occur
    twice.
    coefficients [N]: constants, such as the sample's weight over batch size and response length.
    more: chooses ids [R, M] by the log-probabilities themselves; theirs then stand behind the K, in what `per_token` is given.
    temperature: divides the logits. chunk_tokens: C. None: 256 MiB of logits on a CPU, 160 MB on a GPU.

    Gradients as in ``chunked.chunked_loss``: only one backward is possible. Raises ValueError for shapes that do not match.
    """
    N, V = len(hidden), vocab_size
    if hidden.shape != (N, head.weight.shape[1]) or not 0 < V <= len(head.weight):
        given = f"{tuple(hidden.shape)}, {V} entries and a head of {tuple(head.weight.shape)}"
        raise ValueError(f"hidden states must be [N, H], of a head of [at least vocab_size, H], got {given}")
    if ids.ndim != 2 or len(ids) != N or coefficients.shape != (N,):
        shapes = f"{tuple(ids.shape)}, {tuple(coefficients.shape)}"
        raise ValueError(f"ids must be [{N}, K] and coefficients [{N}], got {shapes}")
    scale = head.scale / temperature

    def fill(products_CV: Tensor, rows: slice, gradient_CV: Tensor | None, columns: list[Tensor]) -> None:
        for block in slices(rows.start, rows.stop, block_rows(products_CV)):
            here = slice(block.start - rows.start, block.stop - rows.start)
            log_p = log_softmax(products_CV[here], head, temperature)
            ids_RK = ids[block] if more is None else torch.cat([ids[block], more(log_p, block)], dim=1)
            values_R, slopes_RK = _value_and_slopes(per_token, log_p.gather(1, ids_RK), block)
            columns[0][block], columns[1][block] = values_R, log_p.gather(1, ids_RK[:, :1])[:, 0]
            if gradient_CV is None:
                continue
            slopes_RK = slopes_RK * (coefficients[block, None].to(log_p.dtype) * scale)
            probabilities, gradient_RV = log_p.exp_(), gradient_CV[here]
            # In place of the products wherever they are of one type: each pass over [R, V] counts.
            found_RV = gradient_RV if gradient_RV.dtype == log_p.dtype and head.soft_cap is None else probabilities
            torch.mul(probabilities, -slopes_RK.sum(dim=-1, keepdim=True), out=found_RV).scatter_add_(1, ids_RK, slopes_RK)
            if head.soft_cap is not None:
                found_RV.mul_(1 - (capped(products_CV[here], head) / head.soft_cap).square())
            if found_RV is not gradient_RV:
                gradient_RV.copy_(found_RV)

    chunk = chunk_tokens or max(1, CHUNK_ELEMENTS[hidden.device.type] // V)
    work = Work(fill=fill, columns=2, coefficients=coefficients, vocab_size=V, chunk=chunk, apart=True)
    return TokenLoss(*chunked_loss(hidden, head, work))


def _value_and_slopes(per_token: PerToken, logprobs_RK: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """The losses [R], and the derivative of each with respect to its log-probabilities, [R, K]."""
    with torch.enable_grad():
        leaf = logprobs_RK.detach().requires_grad_()
        values_R = per_token(leaf, rows)
        (slopes_RK,) = torch.autograd.grad(values_R.sum(), leaf)
    return values_R.detach(), slopes_RK
