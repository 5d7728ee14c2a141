"""What generators and vLLM teachers share: an engine and vLLM's weight-transfer protocol."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.cluster.visible_gpus import check_visible_gpus
from actors.engines.build import build_engine, read_limits
from actors.engines.loop import EngineLoop, reset_cache
from actors.engines.specs import EngineSpec
from actors.weight_sync.receiver import HostReceiver, Waiting
from renio_pipeline.stages.engine_limits import Ready
from renio_pipeline.stages.engine_text import EngineText, engine_text
from renio_pipeline.types import FIRST_VERSION, Version

if TYPE_CHECKING:
    from vllm import LLMEngine

    from actors.weight_sync.sender import HostCopy


class VllmReplica:
    """Base of the Ray actors that hold a vLLM engine. The four ``*_weight_*`` methods are vLLM's weight-transfer protocol.

    No token is sampled between the start and the end of an update. Requests in flight then continue with the new weights if the
    spec says ``keep_in_flight``; otherwise having any is an error. After an update failed or was aborted, requests fail with
    EngineFailed until a later update completes.
    """

    def __init__(self, spec: EngineSpec) -> None:
        if spec.on_gpu:
            check_visible_gpus()
        self._spec = spec
        self._loop = EngineLoop(partial(build_engine, spec))
        self._version = FIRST_VERSION
        self._receiver = HostReceiver(in_process=not spec.own_process)
        self._waiting = Waiting()

    async def ready(self) -> Ready:
        """Returns when the engine is built: its number of workers, and the limits it was built with."""
        return Ready(receivers=self._spec.tensor_parallel, limits=await self._call(read_limits))

    async def ping(self) -> int:
        """This process's id. Answers at once, whatever the engine is doing."""
        return os.getpid()

    async def busy_seconds(self) -> float:
        return self._loop.busy_seconds

    async def engine_text(self, labels: dict[str, str]) -> EngineText:
        """vLLM's own metrics with these labels added; empty if the engine does not collect any."""
        from vllm.v1.metrics.prometheus import get_prometheus_registry

        return engine_text(get_prometheus_registry(), "vllm:", labels)

    async def sleep(self) -> None:
        """Free the GPU's memory. The replica must be idle, and refuses requests and weights until it wakes up.

        vLLM's level 1 moves the weights to host memory, drops the KV cache, and frees the GPU memory of both. ``wake_up``
        restores the same weights; a weight sync must wait for it. On a CPU vLLM has no sleep mode: the memory stays in use, and
        everything else is the same.

        Raises:
            RuntimeError: requests or a weight update are in progress, or the spec of a GPU engine does not say ``sleeps``.
        """
        await asyncio.wrap_future(self._loop.sleep(free_memory=self._frees_memory()))

    async def wake_up(self) -> None:
        """Reclaim the GPU's memory: same weights and version, empty cache. No effect on an engine that is awake."""
        await asyncio.wrap_future(self._loop.wake_up(free_memory=self._frees_memory()))

    async def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Join a transfer group, in place of a previous one. Raises TransferAborted if the rendezvous is aborted."""
        self._waiting.abort()  # the previous group's sender may have died during a transfer
        with self._waiting.for_others() as file:
            await self._call(_rpc("renio_join", init_info, file))

    async def start_weight_update(self) -> None:
        """Stop the engine's steps until the update ends. Called again, the update starts over."""
        with self._invalid_on_failure():
            await asyncio.wrap_future(self._loop.hold())
            await self._call(_rpc("renio_start_update"), held=True)

    async def update_weights(self, update_info: dict[str, Any]) -> float:
        """Load one chunk. Returns the seconds spent fetching it, without the engine's own load.

        Raises:
            TimeoutError: the chunk did not arrive in time.
            TransferAborted: the update was aborted while this receiver waited for the others.
        """
        with self._invalid_on_failure():
            if self._spec.sync_backend != "host":
                with self._waiting.for_others() as file:
                    await self._call(_rpc("renio_receive", update_info, file), held=True)
                return 0.0
            started = time.perf_counter()
            chunk = await self._receiver.fetch(update_info)
            fetched = time.perf_counter() - started
            with self._receiver.released():
                await self._call(_rpc("update_weights", chunk), held=True)
            return fetched

    async def finish_weight_update(self, version: Version) -> None:
        """Use the new weights for every later token. Raises RuntimeError if a layer did not receive its weights."""
        with self._invalid_on_failure():
            await self._call(_rpc("renio_verify_loaded"), held=True)
            await self._call(_rpc("finish_weight_update"), held=True)
            await self._call(_rpc("renio_repack"), held=True)
            await self._adopt(version)

    async def abort_weight_update(self) -> None:
        """Abort the update in progress, if any, and stop waiting for other receivers: the sender has failed or is gone."""
        self._waiting.abort()
        await asyncio.wrap_future(self._loop.mark_weights_invalid(RuntimeError("it was aborted")))

    async def cancel_all(self) -> None:
        """Cancel every request and the weight update in progress: the run rolls back, and nobody waits for them."""
        await self.abort_weight_update()
        await asyncio.wrap_future(self._loop.cancel_all())

    async def load_adapter(self, update_info: dict[str, Any]) -> float:
        """Use these LoRA factors for every later token. Returns the seconds spent fetching them."""
        started = time.perf_counter()
        chunk = await self._receiver.fetch(update_info)
        fetched = time.perf_counter() - started
        assert self._spec.lora is not None, "the engine was not built for an adapter"
        with self._invalid_on_failure():
            await asyncio.wrap_future(self._loop.hold())
            with self._receiver.released():
                await self._call(_rpc("renio_load_adapter", chunk, self._spec.lora.model_dump(mode="json")), held=True)
            await self._adopt(update_info["version"])
        return fetched

    async def load_copy(self, copy: HostCopy) -> None:
        """Load the weights that the other replicas were sent last: for a replica that joins between two syncs.

        Raises:
            TimeoutError: a chunk did not arrive in time.
            ray.exceptions.ObjectLostError: the process that published the copy is gone, and the copy with it.
        """
        if copy.kind == "adapter":
            (chunk,) = copy.chunks
            await self.load_adapter(chunk | {"version": copy.version})
            return
        await self.start_weight_update()
        for chunk in copy.chunks:
            await self.update_weights(chunk)
        await self.finish_weight_update(copy.version)

    async def weight_version(self) -> str:
        """The weight version that the engine itself reports."""
        version: str = await self._call(lambda engine: engine.get_weight_version())
        return version

    async def _adopt(self, version: Version) -> None:
        """Drop prefixes cached under older weights; every later token carries the new version."""

        def adopt(engine: LLMEngine) -> None:
            reset_cache(engine, running=self._spec.keep_in_flight)
            engine.set_weight_version(str(version))

        await self._call(adopt, held=True)
        self._version = Version(*version)
        await asyncio.wrap_future(self._loop.release())

    @contextmanager
    def _invalid_on_failure(self) -> Iterator[None]:
        """Around one part of an update: if it fails, the weights are a mixture, and nothing may be sampled from them.

        ``hold`` must be called inside: a caller that is cancelled while it waits for the device would leave the engine held.
        """
        try:
            yield
        except BaseException as error:
            self._loop.mark_weights_invalid(error)
            raise

    def _frees_memory(self) -> bool:
        if self._spec.on_gpu and not self._spec.sleeps:
            raise RuntimeError("this engine was built without sleep mode: set sleeps in its spec")
        return self._spec.on_gpu

    async def _call(self, function: Callable[[LLMEngine], Any], *, held: bool = False) -> Any:
        return await asyncio.wrap_future(self._loop.call(function, held=held))


def _rpc(method: str, *args: Any) -> Callable[[LLMEngine], None]:
    """Call a method on every engine worker. The call raises RuntimeError with the text of the first that failed."""

    def call(engine: LLMEngine) -> None:
        failures: list[str | None] = engine.collective_rpc("renio_try", args=(method, *args))
        for failure in failures:
            if failure is not None:
                raise RuntimeError(failure)

    return call
