"""Weights from the trainer ranks to the generators, through vLLM's weight-transfer API.

    source = DeepSpeedSource(engine.module, zero_stage=3, dtype=torch.bfloat16)       # on every rank
    sender = make_sender("host", source, SyncClient(generators), rank=rank)           # the first rank drives
    receipt = sender.send(Version(0, 1))                                              # collective: all ranks call it

Every backend follows vLLM's protocol: start_weight_update, update_weights (once or more), finish_weight_update(version).
``host`` goes through the object store; ``nccl`` and ``ipc`` are vLLM's own trainer engines behind the same ``send``.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from multiprocessing import shared_memory
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from actors.wire import pack_chunks, put
from renio_pipeline.types import Version

if TYPE_CHECKING:
    pass

CHUNK_BYTES = 256 * 2**20
SEND_SECONDS = 1800.0  # a native transfer that takes longer has failed
ABORT_SECONDS = 30.0  # for what a failed transfer has under way


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReceipt:
    version: Version
    bytes: int
    publish_seconds: float  # gathering, casting and writing the host copy; 0 where the backend overlaps them
    receive_seconds: float  # the slowest generator's fetch, before its engine's own load
    seconds: float


class Sender(Protocol):
    def send(self, version: Version) -> SyncReceipt:
        """Bring every receiver to ``version``. All trainer ranks call it, at the same time."""
        ...


class SyncClient:
    """vLLM's ``VLLMWeightSyncClient`` for several engines, each an actor with its own number of workers.

    The stock client gives every engine the same ``rank_offset``, so that independent engines collide in one group, and
    does not pass the version on. Here engine i starts after the workers of engines 0 to i-1, and ``version`` goes with
    ``finish_weight_update``.
    """

    def __init__(self, engines: Sequence[Any], workers: Sequence[int], call: Callable[..., list[Any]] | None = None) -> None:
        self.engines = list(engines)
        self.workers = list(workers)
        self.version = Version(0, 0)
        self.receive_seconds = 0.0
        self.failure: Future[None] = Future()  # of update_weights, for a sender that is blocked in its own half of it
        self._call = call or _call_actors

    def begin(self, version: Version) -> None:
        """Before each round: what ``finish_weight_update`` will say."""
        self.version, self.receive_seconds, self.failure = version, 0.0, Future()

    @property
    def world_size(self) -> int:
        """Of the transfer group: the sending rank and every worker of every engine (1 + the sum of TP x PP)."""
        return 1 + sum(self.workers)

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        infos = []
        offset = 1
        for workers in self.workers:
            infos.append(init_info | {"rank_offset": offset} if "rank_offset" in init_info else init_info)
            offset += workers
        self._call(self.engines, "init_weight_transfer_engine", infos)

    def start_weight_update(self) -> None:
        self._call(self.engines, "start_weight_update", None)

    def update_weights(self, update_info: Any) -> None:
        try:
            seconds = self._call(self.engines, "update_weights", [update_info] * len(self.engines))
        except BaseException as error:
            self.failure.set_exception(error)
            raise
        self.receive_seconds += max((s or 0.0 for s in seconds), default=0.0)

    def load_adapter(self, update_info: Any, version: Version) -> float:
        """Make LoRA factors those of every later sample, on every engine. Returns the slowest one's seconds of fetching."""
        update = update_info | {"version": version}
        return max(self._call(self.engines, "load_adapter", [update] * len(self.engines)), default=0.0)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._call(self.engines, "finish_weight_update", [self.version] * len(self.engines))


def _call_actors(engines: Sequence[Any], method: str, arguments: Sequence[Any] | None) -> list[Any]:
    import ray

    given: Sequence[tuple[Any, ...]] = [()] * len(engines) if arguments is None else [(a,) for a in arguments]
    return ray.get([getattr(e, method).remote(*a) for e, a in zip(engines, given, strict=True)])


class HostSender:
    """Writes the weights once to the object store: every generator of a node reads the same copy in place."""

    def __init__(self, source: Any, client: SyncClient, *, rank: int, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._source, self._client, self._rank, self._chunk_bytes = source, client, rank, chunk_bytes
        if rank == 0:
            client.init_weight_transfer_engine({})

    def send(self, version: Version) -> SyncReceipt:
        pairs = iter(self._source)
        try:
            if self._rank:
                return SyncReceipt(version=version, bytes=0, publish_seconds=0, receive_seconds=0, seconds=0)
            return self._drive(version, pairs)
        finally:
            _exhaust(pairs)

    def _drive(self, version: Version, pairs: Iterator[Any]) -> SyncReceipt:
        started = time.perf_counter()
        client = self._client
        client.begin(version)
        client.start_weight_update()
        publish = 0.0
        sent = 0
        chunks = pack_chunks(pairs, self._chunk_bytes)
        while True:
            before = time.perf_counter()
            chunk = next(chunks, None)
            if chunk is None:
                break
            update = put(chunk)
            publish += time.perf_counter() - before
            sent += len(chunk["array"])
            client.update_weights(update)
        client.finish_weight_update()
        return SyncReceipt(
            version=version, bytes=sent, publish_seconds=publish, receive_seconds=client.receive_seconds,
            seconds=time.perf_counter() - started,
        )  # fmt: skip


class AdapterSender:
    """Sends LoRA factors alone, through the object store, to engines that serve the base with an adapter."""

    def __init__(self, source: Any, client: SyncClient, *, rank: int) -> None:
        self._source, self._client, self._rank = source, client, rank

    def send(self, version: Version) -> SyncReceipt:
        started = time.perf_counter()
        pairs = list(self._source)  # a collective of all ranks
        if self._rank:
            return SyncReceipt(version=version, bytes=0, publish_seconds=0, receive_seconds=0, seconds=0)
        (chunk,) = pack_chunks(pairs, 2**62)
        update = put(chunk)
        published = time.perf_counter()
        received = self._client.load_adapter(update, version)
        return SyncReceipt(
            version=version, bytes=len(chunk["array"]), publish_seconds=published - started, receive_seconds=received,
            seconds=time.perf_counter() - started,
        )  # fmt: skip


def _exhaust(pairs: Iterator[Any]) -> None:
    """Gathering is a collective of all ranks: a rank that is done, or has failed, still takes part in what is left."""
    for _ in pairs:
        pass


class HostReceiver:
    """Turns a published chunk into what vLLM's workers can read: an array here, or shared memory for other processes."""

    def __init__(self, *, in_process: bool) -> None:
        self._in_process = in_process
        self._blocks: list[shared_memory.SharedMemory] = []

    async def fetch(self, update_info: dict[str, Any]) -> dict[str, Any]:
        array = await update_info["ref"]
        layout = {key: update_info[key] for key in ("names", "dtypes", "shapes", "offsets")}
        if self._in_process:
            return layout | {"array": array}
        block = shared_memory.SharedMemory(create=True, size=max(1, len(array)))
        self._blocks.append(block)
        np.ndarray(len(array), np.uint8, block.buf)[:] = array
        return layout | {"shared_memory": block.name}

    def release(self) -> None:
        """Free what the finished update needed."""
        for block in self._blocks:
            with contextlib.suppress(BufferError):
                block.close()
            block.unlink()
        self._blocks = []


class NativeSender:
    """vLLM's own trainer engine of a backend (``nccl``, ``ipc``) behind ``send``.

    A broadcast waits for ever once a receiver has failed, so the first rank's engine runs on a thread: ``send`` raises as
    soon as a receiver has failed, or after ``seconds``. The group is unusable then, and the sender must be made anew, on a
    fresh port.
    """

    def __init__(self, init_info: Any, source: Any, client: SyncClient, *, rank: int, seconds: float = SEND_SECONDS) -> None:
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

        self._source, self._client, self._rank, self._seconds = _Round(source), client, rank, seconds
        self._broken = False
        self._engine = WeightTransferTrainerFactory.trainer_init(init_info, client=client, source=self._source)

    def send(self, version: Version) -> SyncReceipt:
        import torch

        if torch.accelerator.is_available():
            torch.accelerator.synchronize()  # engines read on streams of their own, which do not wait for the optimizer's
        started = time.perf_counter()
        self._client.begin(version)
        self._source.begin()
        size = 0
        if self._rank:
            self._send()
        else:
            self._watch(version)
            size = sum(int(np.prod(m.shape)) * m.dtype.itemsize for m in self._source.metadata())
        seconds = time.perf_counter() - started
        return SyncReceipt(version=version, bytes=size, publish_seconds=0, receive_seconds=0, seconds=seconds)

    def _send(self) -> None:
        try:
            if self._broken:
                raise RuntimeError("an earlier transfer failed and its group is unusable: connect the generators again")
            self._engine.send_weights()
        finally:
            self._source.finish()

    def _watch(self, version: Version) -> None:
        sent: Future[None] = Future()

        def run() -> None:
            try:
                self._send()
            except BaseException as error:
                sent.set_exception(error)
            else:
                sent.set_result(None)

        threading.Thread(target=run, name="send", daemon=True).start()
        failure = self._client.failure
        wait([sent, failure], self._seconds, FIRST_COMPLETED)
        if sent.done() and sent.exception() is None:
            return
        ended = [part for part in (failure, sent) if part.done()]
        self._broken = True
        self._engine.shutdown()  # aborts a broadcast under way, so that the thread can end
        wait([sent], ABORT_SECONDS)
        for part in ended:
            part.result()  # raises
        raise TimeoutError(f"version {version} was not sent within {self._seconds:g} s")


class _Round:
    """A source whose pass under way can be brought to its end."""

    def __init__(self, source: Any) -> None:
        self._source, self.metadata = source, source.metadata

    def begin(self) -> None:
        self._pairs = iter(self._source)

    def __iter__(self) -> Iterator[Any]:
        return self._pairs

    def finish(self) -> None:
        _exhaust(self._pairs)


def make_sender(backend: str, source: Any, client: SyncClient, *, rank: int, address: str = "", port: int = 0) -> Sender:
    """The sender of a backend. ``address`` and ``port`` are the first rank's, for ``nccl``'s rendezvous."""
    if backend == "host":
        return HostSender(source, client, rank=rank)
    if backend == "nccl":
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        info: Any = NCCLTrainerInitInfo(master_address=address, master_port=port, world_size=client.world_size, rank=rank)
    elif backend == "ipc":
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

        info = IPCTrainerInitInfo(rank=rank)
    else:
        raise ValueError(f"sync.backend {backend!r}: expected host, nccl or ipc")
    return NativeSender(info, source, client, rank=rank)
