"""A generator in this process: batched sampling from a transformers model with a key-value cache."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from copy import copy
from typing import Any

import numpy as np
import torch

from renio_pipeline.config import RunConfig
from renio_pipeline.models.writing import UnderWay, inverse_cdf
from renio_pipeline.types import FIRST_VERSION, Busy, Prompt, Rollout, Version

ROWS = 512  # prompts generated in one batch


class InProcessGenerators:
    """Generates with a module whose weights the trainer may change between two calls.

    Each token is the inverse of the cumulative distribution at a random number that depends only on the run's seed, the
    sample id and the token's position. Two runs with one seed therefore see the same random numbers, which pairs them
    closely, and batching does not change a response except by rounding.
    """

    def __init__(self, lm: Any, config: RunConfig, vocab_size: int, end_ids: Collection[int]) -> None:
        self.size = 1
        self.version = FIRST_VERSION
        self._lm, self._vocab_size, self._end_ids = lm, vocab_size, torch.tensor(sorted(end_ids))
        self._seed, self._temperature = config.seed, config.temperature
        self._max_tokens = config.max_response_tokens
        self._busy = 0.0
        self._ahead: Callable[[], Sequence[Prompt]] = tuple
        self._written: dict[int, Rollout] = {}  # responses of the current weights that were written in advance, by sample id

    def expect(self, ahead: Callable[[], Sequence[Prompt]]) -> None:
        """Generate the prompts that ``ahead`` returns together with the requested ones.

        A filter requests a few prompts at a time, which cost as much as many.
        """
        self._ahead = ahead

    def follow(self, version: Version) -> None:
        """Note that the module now has the weights of ``version``."""
        self.version, self._written = version, {}

    async def generate(self, prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
        missing = [p for p in prompts if p.sample_id not in self._written]
        if missing:
            missing += self._ahead()
        for start in range(0, len(missing), ROWS):
            began = time.perf_counter()
            trains = self._lm.training
            self._lm.eval()  # no dropout, as in an engine
            self._written |= {r.sample_id: r for r in self._write(missing[start : start + ROWS], temperature)}
            self._lm.train(trains)
            self._busy += time.perf_counter() - began
        for p in prompts:
            yield self._written.pop(p.sample_id)

    def longer(self, max_tokens: int) -> InProcessGenerators:
        """The same model, for responses of up to ``max_tokens``."""
        other = copy(self)
        other._max_tokens, other._written, other._ahead = max_tokens, {}, tuple
        return other

    async def busy_seconds(self) -> Busy:
        return {"0": self._busy}

    def chance(self, sample_id: int) -> np.ndarray:
        """[max_tokens] float32: the random numbers in [0, 1) of a sample."""
        rng = np.random.default_rng([self._seed, int(sample_id < 0), abs(sample_id)])
        return rng.random(self._max_tokens, np.float32)

    @torch.no_grad()
    def _write(self, prompts: Sequence[Prompt], temperature: float) -> list[Rollout]:
        """One response per prompt, in the order of the prompts."""
        under_way = UnderWay.begin(self._lm, [p.student_ids for p in prompts])
        chance_BT = torch.tensor(np.stack([self.chance(p.sample_id) for p in prompts]))
        tokens_BT = torch.zeros(chance_BT.shape, dtype=torch.long)
        logprobs_BT = torch.zeros(chance_BT.shape)
        lengths_B = torch.full((len(prompts),), self._max_tokens)
        for t in range(self._max_tokens):
            rows, logits_bV = under_way.rows, under_way.logits[:, : self._vocab_size].float()
            tokens_b = inverse_cdf(torch.softmax(logits_bV / temperature, dim=-1), chance_BT[rows, t])
            tokens_BT[rows, t] = tokens_b
            logprobs_bV = torch.log_softmax(logits_bV / self._temperature, dim=-1)
            logprobs_BT[rows, t] = logprobs_bV.gather(1, tokens_b[:, None]).squeeze(1)
            ended = torch.isin(tokens_b, self._end_ids)
            lengths_B[rows[ended]] = t + 1
            if ended.all() or t == self._max_tokens - 1:
                break
            under_way.go_on(tokens_b, ~ended)
        return [
            Rollout(
                prompt=p,
                token_ids=ids[:n].int().numpy(),
                logprobs=values[:n].numpy(),
                version=self.version,
                replica="0",
                stop_reason="stop" if n and bool(torch.isin(ids[n - 1], self._end_ids)) else "length",
            )
            for p, ids, values, n in zip(prompts, tokens_BT, logprobs_BT, lengths_B.tolist(), strict=True)
        ]
