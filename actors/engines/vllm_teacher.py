"""A teacher on vLLM: a model that scores response tokens after its own prompt, and writes texts where it is asked to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from actors.engines.adapter_requests import request
from actors.engines.specs import EngineSpec
from actors.engines.vllm_replica import VllmReplica
from actors.packed_messages import PackedList
from renio_pipeline.models.end_tokens import exchanged
from renio_pipeline.types import Continuation, ContinuationRequest, ScoreRequest, TopK

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams


class Teacher(VllmReplica):
    """A Ray actor. Its weights change only if it follows the student."""

    def __init__(self, spec: EngineSpec, name: str = "") -> None:
        super().__init__(spec)
        self._top_k = spec.max_logprobs
        # As top-k sampling's k: all. Beside a request with a smaller k, vLLM takes 0 for the number of output rows that the
        # model's configuration names, and fails where fewer are left.
        self._all_tokens = spec.vocab_size

    async def score(self, requests: list[ScoreRequest]) -> tuple[list[np.ndarray], dict[int, TopK]]:
        """Score responses.

        Returns:
            log p_T of each response's tokens ([T] float32, in nats), and the payload by sample id. The payload is a separate
            result so that it stays in the object store: trainer ranks fetch it from there, and it never passes through the
            driver. It is empty if only the sampled tokens are needed.
        """
        from vllm import SamplingParams

        params = SamplingParams(
            max_tokens=1, prompt_logprobs=self._top_k, flat_logprobs=True, detokenize=False, top_k=self._all_tokens
        )
        futures = self._loop.submit(
            [request(self._spec, r.prompt_ids.tolist() + self._read(r).tolist(), params) for r in requests]
        )
        outputs = await asyncio.gather(*map(asyncio.wrap_future, futures))
        tables = [
            top_k_of(output.prompt_logprobs, len(r.response_ids), self._top_k)
            for r, output in zip(requests, outputs, strict=True)
        ]
        payload = {r.sample_id: self._own(t) for r, t in zip(requests, tables, strict=True)} if self._top_k else {}
        return PackedList(t.logprobs[:, 0].copy() for t in tables), payload

    def _read(self, asked: ScoreRequest) -> np.ndarray:
        """[T] the response as the teacher would have ended it."""
        return exchanged(asked.response_ids, self._spec.end_tokens)

    def _own(self, table: TopK) -> TopK:
        return replace(table, token_ids=exchanged(table.token_ids, self._spec.end_tokens)) if self._spec.end_tokens else table

    async def write(self, requests: list[ContinuationRequest]) -> list[Continuation]:
        """Continue prompts, of which each asks for one continuation. They are admitted together, in order.

        Raises:
            ValueError: a continuation would not fit into the engine's context, or a sampling option is one that vLLM refuses.
        """
        futures = self._loop.submit([request(self._spec, r.prompt_ids.tolist(), self._params(r)) for r in requests])
        outputs = await asyncio.gather(*map(asyncio.wrap_future, futures))
        return PackedList(_continuation(output) for output in outputs)

    def _params(self, asked: ContinuationRequest) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        assert asked.n == 1, "the pool asks for each continuation by itself"
        if (tokens := len(asked.prompt_ids) + asked.max_tokens) > self._spec.context:
            raise ValueError(
                f"a prompt of {len(asked.prompt_ids)} tokens and a continuation of {asked.max_tokens} are {tokens} tokens; the "
                f"teacher's engine was built for {self._spec.context}"
            )
        greedy = asked.temperature == 0  # as k = 1, because vLLM sets the k of its own greedy requests to 0
        return SamplingParams(
            # The engine's logits are divided by the distillation temperature already.
            temperature=1.0 if greedy else asked.temperature / self._spec.temperature,
            top_p=asked.top_p,
            top_k=1 if greedy else min(asked.top_k or self._all_tokens, self._all_tokens),
            seed=asked.seed,
            max_tokens=asked.max_tokens,
            stop_token_ids=list(asked.stop_token_ids),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def _continuation(output: RequestOutput) -> Continuation:
    (written,) = output.outputs
    if written.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"the engine ended a text with {written.finish_reason!r}")
    return Continuation(token_ids=np.asarray(written.token_ids, np.int32), stop_reason=written.finish_reason)


def top_k_of(flat: object, tokens: int, k: int) -> TopK:
    """The last ``tokens`` positions of vLLM's flat prompt log-probabilities, as ids [T, k + 1] and nats [T, k + 1].

    vLLM returns k + 1 entries for every position except the first: the prompt's own token, then the k likeliest tokens.
    """
    width = k + 1
    if tokens == 0:
        return TopK(token_ids=np.empty((0, width), np.int32), logprobs=np.empty((0, width), np.float32))
    ids = np.asarray(flat.token_ids[-tokens * width :], np.int32).reshape(tokens, width)  # type: ignore[attr-defined]
    logprobs = np.asarray(flat.logprobs[-tokens * width :], np.float32).reshape(tokens, width)  # type: ignore[attr-defined]
    return TopK(token_ids=ids, logprobs=logprobs)
