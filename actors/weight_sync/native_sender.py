"""The sender for vLLM's own trainer engines, ``nccl`` and ``ipc``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import Any

import numpy as np

from actors.weight_sync.background import on_thread
from actors.weight_sync.client import SyncClient
from actors.weight_sync.receiver import TransferAborted
from actors.weight_sync.sender import Sender, SyncReceipt, exhaust, no_part
from actors.weight_sync.vllm_client import CollectiveClient, IndependentClient, grace
from renio_pipeline.types import Version


class NativeSender(Sender):
    """Runs vLLM's trainer engine of a backend (``nccl``, ``ipc``) behind ``send``.

    The engine's rendezvous and broadcast wait forever for a missing receiver. So the first rank runs them on a thread, and
    gives up when a receiver has failed or the receivers' time is over. Then the group is unusable: ``send`` raises until
    another sender replaces this one, on a fresh port.
    """

    def __init__(self, init_info: Any, source: Any, client: SyncClient, *, rank: int) -> None:
        self._info, self._source, self._rank, self._client = init_info, _Round(source), rank, client
        self._engines = CollectiveClient(client) if init_info.backend == "nccl" else IndependentClient(client)
        self._engine: Any = None  # None before ``open`` and after a failure

    def open(self) -> None:
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

        make = partial(WeightTransferTrainerFactory.trainer_init, self._info, client=self._engines, source=self._source)
        if self._rank:
            self._engine = make()
            return
        self._engines.begin(Version(0, 0))
        made: Future[Any] = on_thread(make)
        if not self._ends_well(made):
            made.add_done_callback(_shut_down)  # it may still complete
            self._raise(made, "the receivers did not join the rendezvous")
        self._engine = made.result()

    def send(self, version: Version) -> SyncReceipt:
        import torch

        if torch.accelerator.is_available():
            torch.accelerator.synchronize()  # engines read on their own streams, which do not wait for the optimizer's
        started = time.perf_counter()
        self._source.begin()
        if self._rank:
            self._send()
            return no_part(version)
        self._engines.begin(version)
        sent = on_thread(self._send)
        if not self._ends_well(sent):
            self.close()  # aborts a broadcast under way, so that the thread can end
            wait([sent], grace(self._client))
            if not sent.done():
                self._source.finish()  # in the thread's place, because the other ranks are gathering
            self._raise(sent, f"version {version} was not sent")
        return SyncReceipt(
            version=version,
            bytes=sum(int(np.prod(m.shape)) * m.dtype.itemsize for m in self._source.metadata()),
            publish_seconds=0,
            receive_seconds=0,
            seconds=time.perf_counter() - started,
            lost=dict(self._client.lost),
        )

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
        """Wait until the engine's work is done or a receiver's call has failed. The calls have deadlines, so this returns."""
        failure = self._engines.failure
        wait([work, failure], self._client.seconds + 2 * grace(self._client), FIRST_COMPLETED)
        return work.done() and work.exception() is None and not failure.done()

    def _raise(self, work: Future[Any], what: str) -> None:
        """Raise the cause. A lost receiver breaks the engine's work too, so the receivers' own errors take precedence."""
        self._engines.give_up(2 * grace(self._client))
        for part in (self._engines.failure, work):
            if part.done() and not isinstance(part.exception(), TransferAborted):
                part.result()  # raises
        raise TimeoutError(f"{what} within {self._client.seconds:g} s")


def _shut_down(made: Future[Any]) -> None:
    if made.exception() is None:
        made.result().shutdown()


class _Round:
    """A weight source whose current pass can be completed from outside."""

    def __init__(self, source: Any) -> None:
        self._source, self.metadata = source, source.metadata

    def begin(self) -> None:
        self._pairs = iter(self._source)

    def __iter__(self) -> Iterator[Any]:
        return self._pairs

    def finish(self) -> None:
        exhaust(self._pairs)
