"""A generator over an engine that is scheduled as on a GPU, and short ways to use it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from vllm import LLMEngine

from actors.engines.generator import Generator, WriteRequest
from actors.engines.loop import EngineLoop, Request
from renio_pipeline.types import Version
from tests.async_engine.device import DEADLINE, Device
from tests.async_engine.stub_worker import HALVES, StubWorker
from tests.async_engine.tokens import EOS

PROMPT = tuple(range(10, 30))  # more than two blocks


class Rig:
    """Attributes: the generator and what it is made of."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.loop: EngineLoop = generator._loop
        self.engine: LLMEngine = self.loop._engine
        self.core: Any = self.engine.engine_core.engine_core
        self.worker: StubWorker = self.core.model_executor.worker
        self.device: Device = self.worker.device

    @property
    def unread(self) -> int:
        """Batches whose tokens the engine has not taken yet."""
        return len(self.core.batch_queue)

    def request(self, most: int, *, ends_after: int = 0, prompt: Sequence[int] = PROMPT) -> Request:
        """Write ``most`` tokens, or end by itself ``ends_after`` so many."""
        prompt_ids = [ends_after, *prompt]
        return Request(prompt_ids, self.generator._params(write_request(0, prompt_ids, most)))

    def submit(self, *requests: Request) -> list[Future[Any]]:
        return self.loop.submit(requests)

    def commands_run(self) -> None:
        """Everything that was posted to the engine's thread before has been done."""
        self.loop.call(lambda engine: None).result(DEADLINE)

    async def outputs(self, *requests: Request) -> list[Any]:
        return await asyncio.gather(*map(asyncio.wrap_future, self.submit(*requests)))

    async def until(self, condition: Callable[[], bool]) -> None:
        """``Device.until``, without blocking the event loop."""
        await asyncio.to_thread(self.device.until, condition)

    async def load(self, number: int, halves: Sequence[str] = HALVES, *, seconds: float = 0.0) -> None:
        """Send halves of the weights, each after so many seconds. The update must have begun."""
        for half in halves:
            await self.generator.update_weights(chunk(half, number, seconds))

    async def update(self, number: int, *, seconds: float = 0.0) -> None:
        """A whole update to the weights of this number."""
        await self.generator.start_weight_update()
        await self.load(number, seconds=seconds)
        await self.finish(number)

    async def update_in_flight(self, number: int, *, then: float) -> None:
        """``start_in_flight`` and the rest of the update. The device may finish ``then`` batches after it."""
        await self.start_in_flight()
        await self.load(number)
        self.device.allow(then)
        await self.finish(number)

    async def start_in_flight(self) -> None:
        """Begin an update while two batches are in flight: the engine reads one, and waits for the other.

        The device must have been allowed a number of batches: here it has finished them.
        """
        starting = await self.starting_in_flight()
        self.device.allow(math.inf)
        await starting

    async def starting_in_flight(self) -> asyncio.Task[None]:
        """The same, but the device still finishes nothing."""
        await self.until(self.device.stuck)
        starting = asyncio.create_task(self.generator.start_weight_update())
        await asyncio.sleep(0)  # the engine finds the command when its step ends
        return starting

    async def finish(self, number: int) -> None:
        await self.generator.finish_weight_update(Version(0, number))


def write_request(sample_id: int, prompt_ids: Sequence[int], most: int) -> WriteRequest:
    return WriteRequest(
        sample_id=sample_id,
        prompt_ids=np.array(prompt_ids, np.int32),
        seed=sample_id,
        max_tokens=most,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
    )


def chunk(half: str, number: int, seconds: float) -> dict[str, Any]:
    """One half of the weights as ``update_weights`` takes it from the object store."""
    pieces = [np.array([number], np.int32).view(np.uint8)]
    ref = asyncio.ensure_future(asyncio.sleep(seconds, pieces))
    return {"ref": ref, "seconds": DEADLINE, "names": [half], "dtypes": ["int32"], "shapes": [[1]], "pieces": [1]}


def results(futures: Sequence[Future[Any]]) -> list[Any]:
    return [future.result(DEADLINE) for future in futures]


def lengths(outputs: Sequence[Any]) -> list[int]:
    return [len(output.outputs[0].token_ids) for output in outputs]


def ended_by_itself(output: Any) -> bool:
    return output.outputs[0].token_ids[-1] == EOS
