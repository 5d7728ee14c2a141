"""A vLLM teacher that returns hidden states, for teachers that need more than one GPU.

vLLM's pooling runner returns the states after the final norm. The log-probabilities of the sampled tokens are computed from
them here, with the output head from the model's files, because the pooling runner does not load it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.engines.adapter_requests import request
from actors.engines.specs import EngineSpec
from actors.engines.vllm_replica import VllmReplica
from renio_pipeline.models.end_tokens import exchanged
from renio_pipeline.types import Hidden, ScoreRequest

if TYPE_CHECKING:
    import torch


class HiddenTeacher(VllmReplica):
    """A Ray actor. Its weights never change."""

    def __init__(self, spec: EngineSpec, name: str = "") -> None:
        import torch

        from renio_pipeline.models.heads import load_head

        super().__init__(spec)
        self._name = name
        head = load_head(spec.model, getattr(torch, spec.dtype))
        self._head = head.to("cuda" if torch.cuda.is_available() else "cpu")

    async def score(self, requests: list[ScoreRequest]) -> tuple[list[np.ndarray], dict[int, Hidden]]:
        """log p_T and the hidden states, as two results: see ``actors.engines.vllm_teacher.Teacher.score``."""
        import torch
        from vllm import PoolingParams

        from renio_pipeline.objectives.payload import to_numpy

        # With a cached prefix vLLM would return the states of the remaining tokens only.
        params = PoolingParams(task="token_embed", use_activation=False, skip_reading_prefix_cache=True)
        asked = [r for r in requests if len(r.response_ids)]
        asked = [replace(r, response_ids=exchanged(r.response_ids, self._spec.end_tokens)) for r in asked]
        futures = self._loop.submit([request(self._spec, _tokens(r), params) for r in asked])
        outputs: list[Any] = await asyncio.gather(*map(asyncio.wrap_future, futures))
        found = {r.sample_id: _own(o.outputs.data, r) for r, o in zip(asked, outputs, strict=True)}
        width = self._head.weight.shape[1]
        none = torch.empty(0, width, dtype=getattr(torch, self._spec.dtype))
        states = [found.get(r.sample_id, none) for r in requests]
        payload = {
            r.sample_id: Hidden(values=to_numpy(s), version=self._version, teacher=self._name)
            for r, s in zip(requests, states, strict=True)
        }
        return await asyncio.to_thread(self._logprobs, states, requests), payload

    def _logprobs(self, states: Sequence[torch.Tensor], requests: Sequence[ScoreRequest]) -> list[np.ndarray]:
        import torch

        from renio_pipeline.objectives.projection import token_logprobs

        device = self._head.weight.device
        read = [exchanged(r.response_ids, self._spec.end_tokens) for r in requests]
        targets = torch.as_tensor(np.concatenate(read)).long().to(device)
        _, values = token_logprobs(
            torch.cat(list(states)).to(device),
            targets,
            self._head,
            temperature=self._spec.temperature,
            vocab_size=self._spec.vocab_size,
        )
        return [part.cpu().numpy() for part in values[:, 0].split([len(r.response_ids) for r in requests])]


def _tokens(request: ScoreRequest) -> list[int]:
    """All tokens except the last, whose state predicts nothing that is needed."""
    ids: list[int] = request.prompt_ids.tolist() + request.response_ids.tolist()
    return ids[:-1]


def _own(states: torch.Tensor, request: ScoreRequest) -> torch.Tensor:
    """A copy of the states [T, H'] that predict the response. On a CPU vLLM returns a view of the whole step's states.

    Counted from the end: after a preemption during a chunked prefill vLLM also returns the discarded chunks, in front.
    """
    if len(states) < request.tokens - 1:
        raise RuntimeError(
            f"vLLM returned {len(states)} states for the {request.tokens - 1} tokens of sample {request.sample_id}"
        )
    return states[len(states) - len(request.response_ids) :].clone()
