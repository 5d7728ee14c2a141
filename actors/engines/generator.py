"""A generator: a vLLM engine with the student's weights, which writes responses and receives new weights."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.engines.adapter_requests import request as request_of
from actors.engines.loop import Request
from actors.engines.result_batcher import SLACK, ResultBatcher
from actors.engines.specs import EngineSpec
from actors.engines.vllm_replica import VllmReplica
from actors.packed_messages import pack, unpack
from renio_pipeline.config.schema import Sampling
from renio_pipeline.types import Message, StopReason, Version

if TYPE_CHECKING:
    from vllm import RequestOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRequest(Message):
    """One response to write."""

    sample_id: int
    prompt_ids: np.ndarray  # [P] int32
    seed: int
    max_tokens: int
    temperature: float  # of sampling, not divided by the distillation temperature
    top_p: float
    top_k: int
    options: dict[str, Any] = field(default_factory=dict)  # further ones of vLLM's SamplingParams: see ``sampling_options``
    slack: float = SLACK  # share of its duration by which the result may be delayed: see ``ResultBatcher``


@dataclass(frozen=True, slots=True, kw_only=True)
class Written(Message):
    """A finished response. An aborted one has no usable tokens, and is sent out again."""

    sample_id: int
    token_ids: np.ndarray  # [T] int32
    logprobs: np.ndarray  # [T] float32, in nats, at the distillation temperature
    stop_reason: StopReason | None  # None: aborted
    version: Version  # of the weights that sampled its first token
    last_version: Version | None = None  # of the weights that sampled its last token; None: aborted


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Takes the place of a response: the engine refused the request, or failed."""

    sample_id: int
    error: Exception


Ended = Written | Failed


def sampling_options(sampling: Sampling, temperature: float) -> dict[str, Any]:
    """The options of vLLM's SamplingParams for what of the configuration is not the default.

    None of them changes the log-probabilities that are reported: those are of the model's own distribution.

    Args:
        temperature: the distillation temperature, by which the engine's logits are divided. vLLM subtracts penalties from
            those.
    """
    found: dict[str, Any] = {
        "presence_penalty": sampling.presence_penalty / temperature,
        "frequency_penalty": sampling.frequency_penalty / temperature,
        "repetition_penalty": sampling.repetition_penalty,
        "min_p": sampling.min_p,
        "stop": list(sampling.stop),
        "stop_token_ids": list(sampling.stop_token_ids),
    }
    default = Sampling()
    return {name: value for name, value in found.items() if getattr(sampling, name) != getattr(default, name)}


class Generator(VllmReplica):
    """A Ray actor. ``exchange`` takes requests and returns responses."""

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        self._results: ResultBatcher[Ended] = ResultBatcher()

    async def exchange(self, packed: bytes) -> bytes:
        """Admit requests together, in order, and return all responses that finished since the last call.

        Waits for the next response to finish. A later call makes this one return an empty list.

        Args:
            packed: a list of ``WriteRequest``: see ``actors.packed_messages``.

        Returns:
            A packed list of ``Ended``, of these or earlier requests.
        """
        requests: list[WriteRequest] = unpack(packed)
        loop = asyncio.get_running_loop()
        futures = self._loop.submit([self._request(r.prompt_ids.tolist(), self._params(r)) for r in requests])
        for request, future in zip(requests, futures, strict=True):
            future.add_done_callback(partial(self._ended, loop, request, time.monotonic()))
        return pack(await self._results.take())

    async def score(self, prompts: list[list[int]]) -> list[np.ndarray]:
        """log p_S in nats of every token except the first of each sequence, [len - 1] float32. Used by tests."""
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=1, prompt_logprobs=0, flat_logprobs=True, detokenize=False)
        futures = self._loop.submit([self._request(p, params) for p in prompts])
        outputs = await asyncio.gather(*map(asyncio.wrap_future, futures))
        return [np.asarray(output.prompt_logprobs.logprobs, np.float32) for output in outputs]

    def _request(self, prompt_ids: list[int], params: Any) -> Request:
        if self._spec.lora is None:
            return request_of(self._spec, prompt_ids, params)
        from vllm.lora.request import LoRARequest

        from actors.engines.vllm_lora import ADAPTER_ID

        # The path is never read: an adapter is loaded before the first request, and each later adapter replaces it under the
        # same id. So requests in flight, which refer to that id, continue with the new adapter, as they do with whole weights.
        # Prefixes are cached under the name, and loading an adapter empties the cache. A request under the older name that
        # continues after that caches prefixes of the newer weights, which no request under the newer name finds.
        return Request(prompt_ids, params, LoRARequest(f"student-{self._version}", ADAPTER_ID, "memory"))

    def _params(self, request: WriteRequest) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            # The engine's logits are already divided by the distillation temperature.
            temperature=request.temperature / self._spec.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            seed=request.seed,
            max_tokens=request.max_tokens,
            logprobs=0,
            flat_logprobs=True,
            detokenize="stop" in request.options,  # to find stop texts, and for nothing else
            output_kind=RequestOutputKind.FINAL_ONLY,
            **request.options,
        )

    def _ended(
        self, loop: asyncio.AbstractEventLoop, request: WriteRequest, began: float, future: Future[RequestOutput]
    ) -> None:
        """Called in the engine's thread when a request has finished."""
        sample_id = request.sample_id
        error = future.exception()
        if error is None:
            ended: Ended = self._written(sample_id, future.result())
        else:
            ended = Failed(sample_id=sample_id, error=error if isinstance(error, Exception) else RuntimeError(repr(error)))
        loop.call_soon_threadsafe(self._results.put, ended, time.monotonic() - began, request.slack)

    def _written(self, sample_id: int, output: RequestOutput) -> Written:
        completion = output.outputs[0]
        if completion.finish_reason not in ("stop", "length"):
            empty = np.empty(0)
            return Written(sample_id=sample_id, token_ids=empty, logprobs=empty, stop_reason=None, version=self._version)
        spans = completion.weight_versions  # in token order, as the engine labelled the tokens when it sampled them
        return Written(
            sample_id=sample_id,
            token_ids=np.asarray(completion.token_ids, np.int32),
            logprobs=np.asarray(completion.logprobs.logprobs, np.float32),
            stop_reason=completion.finish_reason,
            version=Version.parse(spans[0].version),
            last_version=Version.parse(spans[-1].version),
        )
