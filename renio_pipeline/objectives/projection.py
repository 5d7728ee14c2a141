"""Output heads: from hidden states to logits and log-probabilities. Imports torch only.

Shape legend: N tokens, V vocabulary entries in use, H hidden size, `rows` of an output head (at least V, because heads are
padded), C tokens of a chunk, K requested vocabulary entries at each of the N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from renio_pipeline.divergence import at_least_fp32

LOGIT_ELEMENTS = 2**25  # of [C, V], where no gradient is needed


@dataclass(frozen=True)
class Head:
    """An output head: a hidden state h has logits scale · cap(weight · h + bias), with cap(x) = soft_cap · tanh(x / soft_cap).

    The cap comes before the scale, as in vLLM's LogitsProcessor. soft_cap None: no cap.
    """

    weight: Tensor  # [rows, H]
    bias: Tensor | None = None  # [rows]
    scale: float = 1.0
    soft_cap: float | None = None

    def exchanged(self, pairs: Sequence[tuple[int, int]]) -> Head:
        """This head with the rows of each pair of token ids in each other's places: a copy, unless there are none."""
        if not pairs:
            return self
        order = torch.arange(len(self.weight), device=self.weight.device)
        for one, other in pairs:
            order[one], order[other] = other, one
        return replace(self, weight=self.weight[order], bias=None if self.bias is None else self.bias[order])

    def to(self, device: torch.device | str) -> Head:
        """This head with its tensors on ``device``."""
        bias = None if self.bias is None else self.bias.to(device)
        return replace(self, weight=self.weight.to(device), bias=bias)


def factor(weight: Tensor) -> Tensor:
    """An output head's weight [rows, H] in the type of the products: bfloat16 on a GPU, which accumulates in float32;
    otherwise float32 or wider.

    float16 becomes float32, because one token's share of the gradient, near 1e-8, underflows in float16.
    """
    return weight if weight.is_cuda and weight.dtype == torch.bfloat16 else at_least_fp32(weight)


def product(left: Tensor, right: Tensor) -> Tensor:
    """left [C, H] @ right [H, V] in float32 or wider: the three digits of bfloat16 are too few for logits."""
    if right.dtype == torch.bfloat16:
        return torch.mm(left, right, out_dtype=torch.float32)
    return torch.mm(left, right)


def capped(products: Tensor, head: Head) -> Tensor:
    """weight · h, [..., V], with the head's bias and soft cap applied; the same tensor where the head has neither."""
    logits = products if head.bias is None else products + head.bias[: products.shape[-1]]
    return logits if head.soft_cap is None else torch.tanh(logits / head.soft_cap) * head.soft_cap


def log_softmax(products: Tensor, head: Head, temperature: float) -> Tensor:
    """Log-probabilities [..., V] in nats, at the temperature, from weight · h, [..., V]."""
    logits, scale = capped(products, head), head.scale / temperature
    return torch.log_softmax(logits if scale == 1 else logits * scale, dim=-1)


def token_logprobs(
    hidden: Tensor, targets: Tensor, head: Head, *, temperature: float, vocab_size: int, top_k: int = 0
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the targets and of the likeliest tokens, chunk by chunk, in float32 or wider, without gradient.

    hidden [N, H]: states after the final norm. targets [N]: token ids.
    temperature: divides the logits. vocab_size: V, the entries that the softmax runs over.
    top_k: K.

    Returns ids [N, K+1] int64 and log-probabilities [N, K+1] in nats: column 0 of the target, columns 1 to K of the K
    likeliest tokens in falling order.
    """
    weight = factor(head.weight[:vocab_size])
    chunk = max(1, LOGIT_ELEMENTS // vocab_size)
    parts = []
    with torch.no_grad():
        for states, own in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            logits = product(states.to(weight.dtype), weight.T)
            if head.bias is not None:
                logits += head.bias[:vocab_size]
            if head.soft_cap is not None:
                logits.div_(head.soft_cap).tanh_().mul_(head.soft_cap)
            if head.scale != temperature:
                logits *= head.scale / temperature
            logprobs = torch.log_softmax(logits, dim=-1)
            ids = torch.cat([own[:, None], logprobs.topk(top_k, dim=-1).indices], dim=1)
            parts.append((ids, logprobs.gather(1, ids)))
    ids, values = (torch.cat(part) for part in zip(*parts, strict=True))
    return ids, values
