"""Writes text with a transformers model: batched decoding with a key-value cache.

Each token is the inverse of the cumulative distribution at a random number that depends on its text's seed and its position
alone, so that the rest of a batch changes a text by rounding only. Shapes: b rows that are being written, V vocabulary entries.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renio_pipeline.types import Continuation, ContinuationRequest

ROWS = 32  # prompts in one batch of ``continue_prompts``


@torch.no_grad()
def continue_prompts(
    lm: Any, requests: Sequence[ContinuationRequest], *, vocab_size: int, end_ids: Collection[int]
) -> list[Continuation]:
    """One continuation of each request, in their order; equal settings are written together.

    Args:
        vocab_size: output rows that may be sampled.
        end_ids: the model's own end tokens.

    Raises:
        ValueError: a text would not fit into the model's context.
    """
    context = getattr(lm.config.get_text_config(), "max_position_embeddings", None)
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, r in enumerate(requests):
        if context and len(r.prompt_ids) + r.max_tokens > context:
            raise ValueError(
                f"a prompt of {len(r.prompt_ids)} tokens and a continuation of {r.max_tokens} do not fit into the model's "
                f"context of {context}"
            )
        groups.setdefault((r.temperature, r.top_p, r.top_k, r.stop_token_ids), []).append(place)
    found: dict[int, Continuation] = {}
    for places in groups.values():
        for start in range(0, len(places), ROWS):
            own = places[start : start + ROWS]
            found |= dict(zip(own, _together(lm, [requests[i] for i in own], vocab_size, end_ids), strict=True))
    return [found[i] for i in range(len(requests))]


def _together(
    lm: Any, requests: Sequence[ContinuationRequest], vocab_size: int, end_ids: Collection[int]
) -> list[Continuation]:
    settings = requests[0]
    ends = torch.tensor(sorted({*end_ids, *settings.stop_token_ids}), device=lm.device)
    chances = [np.random.default_rng(r.seed).random(r.max_tokens, np.float32) for r in requests]
    texts: list[list[int]] = [[] for _ in requests]
    stopped = [False] * len(requests)
    under_way = UnderWay.begin(lm, [r.prompt_ids for r in requests])
    while True:
        rows = under_way.rows.tolist()
        chance_b = torch.tensor([float(chances[row][len(texts[row])]) for row in rows], device=lm.device)
        tokens_b = _sampled(under_way.logits[:, :vocab_size].float(), chance_b, settings)
        ended_b = torch.isin(tokens_b, ends)
        for row, token, ended in zip(rows, tokens_b.tolist(), ended_b.tolist(), strict=True):
            texts[row].append(token)
            stopped[row] = ended
        alive = [not stopped[row] and len(texts[row]) < requests[row].max_tokens for row in rows]
        if not any(alive):
            break
        under_way.go_on(tokens_b, torch.tensor(alive, device=lm.device))
    return [
        Continuation(token_ids=np.asarray(text, np.int32), stop_reason="stop" if end else "length")
        for text, end in zip(texts, stopped, strict=True)
    ]


def _sampled(logits_bV: Tensor, chance_b: Tensor, settings: ContinuationRequest) -> Tensor:
    """[b] the next tokens."""
    if settings.temperature == 0:
        return logits_bV.argmax(dim=-1)
    probabilities = torch.softmax(logits_bV / settings.temperature, dim=-1)
    if 0 < settings.top_k < probabilities.shape[-1]:
        least = probabilities.topk(settings.top_k, dim=-1).values[:, -1:]
        probabilities = probabilities.where(probabilities >= least, 0.0)
    if settings.top_p < 1:
        falling, order = probabilities.sort(dim=-1, descending=True)
        before = falling.cumsum(dim=-1) - falling
        falling = falling.where(before < settings.top_p * falling.sum(dim=-1, keepdim=True), 0.0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, falling)
    return inverse_cdf(probabilities, chance_b)


def inverse_cdf(probabilities: Tensor, chance: Tensor) -> Tensor:
    """Draw one token per row by inverting the cumulative distribution. A token with probability 0 is never drawn.

    Args:
        probabilities: [b, V], of any positive sum.
        chance: [b] numbers in [0, 1).

    Returns:
        [b] token ids.
    """
    cumulative = probabilities.double().cumsum(dim=-1)
    reached = chance.double()[:, None] * cumulative[:, -1:]
    return (cumulative <= reached).sum(dim=-1)


@dataclass
class UnderWay:
    """The texts being written: the cache, padded on the left, of the rows that have not ended."""

    lm: Any
    cache: Any
    rows: Tensor  # [b] index of each row's prompt
    mask: Tensor  # [b, L]
    positions: Tensor  # [b] of the next token
    logits: Tensor  # [b, rows of the head] for it

    @classmethod
    def begin(cls, lm: Any, prompts: Sequence[np.ndarray]) -> UnderWay:
        from transformers import DynamicCache

        width = max(map(len, prompts))
        ids, mask = (torch.zeros(len(prompts), width, dtype=torch.long, device=lm.device) for _ in range(2))
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.as_tensor(prompt).long()
            mask[row, width - len(prompt) :] = 1
        cache = DynamicCache(config=lm.config)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        out = lm(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return cls(lm, cache, torch.arange(len(prompts), device=lm.device), mask, mask.sum(dim=1), out.logits[:, -1])

    def go_on(self, tokens: Tensor, alive: Tensor) -> None:
        """Feed the model the tokens just drawn, [b], and drop the rows that are not ``alive``, [b] bool."""
        if not alive.all():
            self.cache.batch_select_indices(alive.nonzero()[:, 0])
            self.rows, self.mask, self.positions, tokens = (x[alive] for x in (self.rows, self.mask, self.positions, tokens))
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], dim=1)
        out = self.lm(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=self.positions[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.positions = self.positions + 1
        self.logits = out.logits[:, -1]
