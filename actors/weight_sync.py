"""Weights from the trainer ranks to the generators, through vLLM's weight-transfer API.

    source = DeepSpeedSource(engine.module, zero_stage=3, dtype=torch.bfloat16)       # on every rank
    client = SyncClient(generators, workers, seconds=1800)                            # the first rank drives
    sender = make_sender("host", source, client, rank=rank)
    sender.open()
    receipt = sender.send(Version(0, 1))                                              # collective: all ranks call it

Every backend follows vLLM's protocol: start_weight_update, update_weights (once or more), finish_weight_update(version).
``host`` goes through the object store; ``nccl`` and ``ipc`` are vLLM's own trainer engines behind the same ``send``.

A receiver that dies or hangs does not end the run. Through ``host`` and ``ipc`` the others get their weights, and the
receipt names it. The members of an ``nccl`` group wait for each other, so there the transfer fails, and the error names it.
"""

from __future__ import annotations

import abc
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from actors.background import on_thread
from actors.sync_client import Call, SyncClient
from actors.weight_receiver import TransferAborted
from renio_pipeline.types import Version

CHUNK_BYTES = 256 * 2**20
ABORT_SECONDS = 30.0  # for what a failed transfer has under way, at most
ASK_AGAIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCopy:
    """What was published last, for a receiver that comes later: see its verb ``load_copy``.

    The chunks lie in the object store of the first rank's node, and in that of every node that has read them: one model's
    bytes a node (or one adapter's), until the last holder of this object lets it go. The sender itself does not hold it: who
    keeps the newest one, and no older one, keeps the memory of one. It dies with the first rank's process.
    """

    version: Version
    kind: Literal["weights", "adapter"]
    chunks: tuple[dict[str, Any], ...]  # as ``wire.put`` makes them


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReceipt:
    version: Version
    bytes: int
    publish_seconds: float  # gathering, casting and writing the host copy; 0 where the backend overlaps them
    receive_seconds: float  # the slowest generator's fetch, before its engine's own load
    seconds: float
    lost: dict[int, str] = field(default_factory=dict)  # receivers without this version, and why, by place in the list
    copy: HostCopy | None = None  # of the first rank, where weights or adapter went through the object store


class TransferFailed(RuntimeError):
    """Receivers that did not come to a rendezvous, or did not see a transfer through, so that the others could not either.

    The others hold a part of new weights. They serve again after a ``connect`` without the lost ones and another ``publish``.

    Attributes:
        lost: why, by place in the list of receivers.
    """

    def __init__(self, lost: dict[int, str]) -> None:
        super().__init__(lost)
        self.lost = lost

    def __str__(self) -> str:
        named = "; ".join(f"receiver {index} {reason}" for index, reason in sorted(self.lost.items()))
        return f"the weight transfer failed ({named}): connect the receivers that are left, and publish again"


class Sender(abc.ABC):
    """Brings the receivers to the weights of a source. One for a list of receivers: another list, another sender."""

    def open(self) -> None:  # noqa: B027  only some have something to do
        """Meet the receivers. All trainer ranks call it.

        Raises:
            TransferFailed: receivers did not come; on the first rank. ``send`` then raises too, and keeps the ranks in step.
        """

    @abc.abstractmethod
    def send(self, version: Version) -> SyncReceipt:
        """Bring every receiver to ``version``. All trainer ranks call it, at the same time, and all come out of it.

        Raises:
            TransferFailed: receivers that wait for each other lost some; on the first rank.
            Exception: a receiver that is well refuses; on the first rank, as the receiver raised it.
        """

    def close(self) -> None:  # noqa: B027
        """Leave the receivers; another sender will come."""


class HostSender(Sender):
    """Writes the weights once to the object store: every generator of a node reads the same copy in place."""

    def __init__(self, source: Any, client: SyncClient, *, rank: int, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._source, self._client, self._rank, self._chunk_bytes = source, client, rank, chunk_bytes

    def send(self, version: Version) -> SyncReceipt:
        pairs = iter(self._source)
        try:
            return self._drive(version, pairs) if self._rank == 0 else _no_part(version)
        finally:
            _exhaust(pairs)

    def _drive(self, version: Version, pairs: Iterator[Any]) -> SyncReceipt:
        """With all receivers lost, too: the copy is for those that come."""
        from actors.wire import pack_chunks, put

        started = time.perf_counter()
        client = self._client
        client.begin()
        client.call("start_weight_update")
        publish = receive = 0.0
        sent = 0
        updates = []
        chunks = pack_chunks(pairs, self._chunk_bytes)
        while True:
            before = time.perf_counter()
            chunk = next(chunks, None)
            if chunk is None:
                break
            updates.append(put(chunk, client.seconds))
            publish += time.perf_counter() - before
            sent += len(chunk["array"])
            receive += max(client.call("update_weights", updates[-1]), default=0.0)
        client.call("finish_weight_update", version)
        return SyncReceipt(
            version=version, bytes=sent, publish_seconds=publish, receive_seconds=receive,
            seconds=time.perf_counter() - started, lost=dict(client.lost),
            copy=HostCopy(version=version, kind="weights", chunks=tuple(updates)),
        )  # fmt: skip


class AdapterSender(Sender):
    """Sends LoRA factors alone, through the object store, to engines that serve the base with an adapter."""

    def __init__(self, source: Any, client: SyncClient, *, rank: int) -> None:
        self._source, self._client, self._rank = source, client, rank

    def send(self, version: Version) -> SyncReceipt:
        from actors.wire import pack_chunks, put

        started = time.perf_counter()
        pairs = list(self._source)  # a collective of all ranks
        if self._rank:
            return _no_part(version)
        client = self._client
        client.begin()
        (chunk,) = pack_chunks(pairs, 2**62)
        update = put(chunk, client.seconds)
        published = time.perf_counter()
        received = max(client.call("load_adapter", update | {"version": version}), default=0.0)
        return SyncReceipt(
            version=version, bytes=len(chunk["array"]), publish_seconds=published - started, receive_seconds=received,
            seconds=time.perf_counter() - started, lost=dict(client.lost),
            copy=HostCopy(version=version, kind="adapter", chunks=(update,)),
        )  # fmt: skip


def _no_part(version: Version) -> SyncReceipt:
    """Of a rank that only gathers."""
    return SyncReceipt(version=version, bytes=0, publish_seconds=0, receive_seconds=0, seconds=0)


def _exhaust(pairs: Iterator[Any]) -> None:
    """Gathering is a collective of all ranks: a rank that is done, or has failed, still takes part in what is left."""
    for _ in pairs:
        pass


class NativeSender(Sender):
    """vLLM's own trainer engine of a backend (``nccl``, ``ipc``) behind ``send``.

    Its rendezvous and its broadcast wait for ever for a receiver that is missing, so the first rank runs them on a thread and
    gives up when a receiver has failed, or when the receivers' time is over. The group is unusable then: ``send`` raises
    until another sender takes this one's place, on a fresh port.
    """

    def __init__(self, init_info: Any, source: Any, client: SyncClient, *, rank: int) -> None:
        self._info, self._source, self._rank, self._client = init_info, _Round(source), rank, client
        self._verbs = _Together(client) if init_info.backend == "nccl" else _Apart(client)
        self._engine: Any = None  # before open, and after a failure

    def open(self) -> None:
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

        make = partial(WeightTransferTrainerFactory.trainer_init, self._info, client=self._verbs, source=self._source)
        if self._rank:
            self._engine = make()
            return
        self._verbs.begin(Version(0, 0))
        made: Future[Any] = on_thread(make)
        if not self._ends_well(made):
            made.add_done_callback(_shut_down)  # it may still come
            self._raise(made, "the receivers did not meet")
        self._engine = made.result()

    def send(self, version: Version) -> SyncReceipt:
        import torch

        if torch.accelerator.is_available():
            torch.accelerator.synchronize()  # engines read on streams of their own, which do not wait for the optimizer's
        started = time.perf_counter()
        self._source.begin()
        if self._rank:
            self._send()
            return _no_part(version)
        self._verbs.begin(version)
        sent = on_thread(self._send)
        if not self._ends_well(sent):
            self.close()  # aborts a broadcast under way, so that the thread can end
            wait([sent], _grace(self._client))
            if not sent.done():
                self._source.finish()  # in its place: the other ranks gather
            self._raise(sent, f"version {version} was not sent")
        return SyncReceipt(
            version=version, bytes=sum(int(np.prod(m.shape)) * m.dtype.itemsize for m in self._source.metadata()),
            publish_seconds=0, receive_seconds=0, seconds=time.perf_counter() - started, lost=dict(self._client.lost),
        )  # fmt: skip

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.shutdown()

    def _send(self) -> None:
        try:
            engine = self._engine
            if engine is None:
                raise RuntimeError("an earlier transfer failed and its group is unusable: connect the generators again")
            engine.send_weights()
        finally:
            self._source.finish()

    def _ends_well(self, work: Future[Any]) -> bool:
        """Wait for the engine's work, until the receivers' verbs have failed. They end in time, so they come first."""
        failure = self._verbs.failure
        wait([work, failure], self._client.seconds + 2 * _grace(self._client), FIRST_COMPLETED)
        return work.done() and work.exception() is None and not failure.done()

    def _raise(self, work: Future[Any], what: str) -> None:
        """A lost receiver breaks the engine's work too, and that may show first: the receivers' own answers come before it."""
        self._verbs.give_up(2 * _grace(self._client))
        for part in (self._verbs.failure, work):
            if part.done() and not isinstance(part.exception(), TransferAborted):
                part.result()  # raises
        raise TimeoutError(f"{what} within {self._client.seconds:g} s")


def _shut_down(made: Future[Any]) -> None:
    if made.exception() is None:
        made.result().shutdown()


def _grace(client: SyncClient) -> float:
    """Seconds for what a failed transfer has under way."""
    return min(ABORT_SECONDS, client.seconds)


class _Verbs(abc.ABC):
    """vLLM's ``VLLMWeightSyncClient`` for several engines, which a trainer engine calls on a thread of its own.

    The stock client gives every engine the same ``rank_offset``, so that independent engines collide in one group, and
    does not pass the version on. Here engine i starts after the workers of engines 0 to i-1, and ``version`` goes with
    ``finish_weight_update``.
    """

    def __init__(self, client: SyncClient) -> None:
        self._client = client
        self.begin(Version(0, 0))

    def begin(self, version: Version) -> None:
        """Before each round: what ``finish_weight_update`` will say."""
        self.version = version
        self.failure: Future[None] = Future()  # of a verb, while the engine may be blocked in its own half of it
        self._client.begin()

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        infos: list[tuple[Any, ...]] = []
        offset = 1
        for workers in self._client.workers:
            infos.append((init_info | {"rank_offset": offset} if "rank_offset" in init_info else init_info,))
            offset += workers
        self._all("init_weight_transfer_engine", infos)

    def start_weight_update(self) -> None:
        self._all("start_weight_update", [()] * len(self._client.engines))

    def update_weights(self, update_info: Any) -> None:
        self._all("update_weights", [(update_info,)] * len(self._client.engines))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._all("finish_weight_update", [(self.version,)] * len(self._client.engines))

    def give_up(self, seconds: float) -> None:  # noqa: B027
        """The engine's half has ended: end a verb under way, and wait for that no longer than ``seconds``."""

    @abc.abstractmethod
    def _all(self, verb: str, arguments: Sequence[tuple[Any, ...]]) -> None: ...


class _Together(_Verbs):
    """Receivers that wait for each other: all of them take part, or the transfer fails.

    When one is missing, the others cannot tell who. So they are told to stop waiting, and who does not answer then is lost.
    """

    def __init__(self, client: SyncClient) -> None:
        super().__init__(client)
        self._given_up = threading.Event()
        self._turn = threading.Lock()  # held by the verb under way

    def give_up(self, seconds: float) -> None:
        self._given_up.set()
        if self._turn.acquire(timeout=seconds):
            self._turn.release()

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._client.call("finish_weight_update", self.version)  # all have their weights: nobody waits for anybody

    def _all(self, verb: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        with self._turn:
            try:
                self._try(verb, arguments)
            except BaseException as error:
                if not self.failure.done():
                    self.failure.set_exception(error)
                raise

    def _try(self, verb: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        client = self._client
        if client.lost:  # in an earlier round
            raise TransferFailed(dict(client.lost))
        calls = client.ask(verb, arguments)
        if client.all_well(calls, self._given_up.is_set):
            client.settle(calls)
            return
        until = time.monotonic() + _grace(client)
        self._stop(calls, until)
        errors = client.settle(calls, until).errors
        if client.lost:  # what the others say follows from that
            raise TransferFailed(dict(client.lost))
        for error in errors:
            if not isinstance(error, TransferAborted):
                raise error
        if errors:
            raise errors[0]

    def _stop(self, calls: Sequence[Call], until: float) -> None:
        """Tell receivers to stop waiting for each other, again and again: they may not have begun to."""
        waiting = list(calls)
        while (waiting := [c for c in waiting if not c.future.done()]) and time.monotonic() < until:
            for call in waiting:
                self._client.abort(call.index)
            wait([c.future for c in waiting], ASK_AGAIN_SECONDS)


class _Apart(_Verbs):
    """Receivers that need nothing of each other: one that is lost is left out.

    An error waits until the transfer is over, because the ranks have collectives after each verb, which the first rank may
    not miss.
    """

    def _all(self, verb: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        if self.failure.done():
            return
        errors = self._client.settle(self._client.ask(verb, arguments)).errors
        if errors:
            self.failure.set_exception(errors[0])


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
