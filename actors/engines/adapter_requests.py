"""Requests to an engine whose model has a LoRA adapter of a folder, for good: a teacher's, or that of an evaluated model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.engines.loop import Request
from actors.engines.specs import EngineSpec

if TYPE_CHECKING:
    from vllm import PoolingParams, SamplingParams


def request(spec: EngineSpec, tokens: list[int], params: SamplingParams | PoolingParams) -> Request:
    """A request with the adapter of ``spec``, if it has one."""
    if spec.adapter is None:
        return Request(tokens, params)
    from vllm.lora.request import LoRARequest

    return Request(tokens, params, LoRARequest("adapter", 1, spec.adapter.folder))
