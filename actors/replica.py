"""What generators and vLLM teachers share: an engine, and vLLM's weight-transfer protocol around it."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from actors.engine import EngineLoop, EngineSpec, build_engine
from actors.weight_sync import HostReceiver
from renio_pipeline.types import Version


class VllmReplica:
    """Base of the Ray actors that hold a vLLM engine. The four ``*_weight_*`` verbs are vLLM's weight-transfer protocol."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._loop = EngineLoop(partial(build_engine, spec))
        self._version = Version(0, 0)
        self._receiver = HostReceiver(in_process=not spec.separate_process and spec.tensor_parallel == 1)

    async def ready(self) -> int:
        """How many engine workers receive weights."""
        return self._spec.tensor_parallel

    async def busy_seconds(self) -> float:
        return self._loop.busy_seconds

    async def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        await self._rpc("init_weight_transfer_engine", init_info)

    async def start_weight_update(self) -> None:
        await self._rpc("start_weight_update")

    async def update_weights(self, update_info: dict[str, Any]) -> float:
        """Load one chunk. Returns the seconds of fetching it, before the engine's own load."""
        if self._spec.sync_backend != "host":
            await self._rpc("update_weights", update_info)
            return 0.0
        started = time.perf_counter()
        chunk = await self._receiver.fetch(update_info)
        fetched = time.perf_counter() - started
        await self._rpc("update_weights", chunk)
        self._receiver.release()  # the workers hold it until they are done: a death from here on leaves nothing behind
        return fetched

    async def finish_weight_update(self, version: Version) -> None:
        """Make the new weights those of every later sample. Raises RuntimeError if a layer did not get its own."""
        await self._rpc("renio_verify_loaded")
        await self._rpc("finish_weight_update")
        await self._rpc("renio_repack_tied_head")
        await self._adopt(version)

    async def load_adapter(self, update_info: dict[str, Any]) -> float:
        """Make LoRA factors those of every later sample. Returns the seconds of fetching them."""
        started = time.perf_counter()
        chunk = await self._receiver.fetch(update_info)
        fetched = time.perf_counter() - started
        assert self._spec.lora is not None, "the engine was not built for an adapter"
        await self._rpc("renio_load_adapter", chunk, self._spec.lora.model_dump(mode="json"))
        self._receiver.release()
        await self._adopt(update_info["version"])
        return fetched

    async def _adopt(self, version: Version) -> None:
        """What was cached is of older weights; from here on every sample carries the new version."""
        if not await asyncio.wrap_future(self._loop.call(lambda engine: engine.reset_prefix_cache())):
            raise RuntimeError("vLLM kept its prefix cache over a weight update: requests were still running")
        await asyncio.wrap_future(self._loop.call(lambda engine: engine.set_weight_version(str(version))))
        self._version = Version(*version)

    async def weight_version(self) -> str:
        """The version as the engine itself knows it."""
        version: str = await asyncio.wrap_future(self._loop.call(lambda engine: engine.get_weight_version()))
        return version

    async def _rpc(self, method: str, *args: Any) -> Any:
        return await asyncio.wrap_future(self._loop.call(lambda engine: engine.collective_rpc(method, args=args)))
