"""vLLM's weight-transfer calls to several engines at once, as vLLM's trainer engines make them."""

from __future__ import annotations

import abc
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import Any

from actors.weight_sync.client import Call, SyncClient
from actors.weight_sync.receiver import TransferAborted
from actors.weight_sync.sender import TransferFailed
from renio_pipeline.types import Version

ABORT_SECONDS = 30.0  # the longest wait for the pending calls of a failed transfer
ASK_AGAIN_SECONDS = 0.5


def grace(client: SyncClient) -> float:
    """Seconds to wait for the pending calls of a failed transfer."""
    return min(ABORT_SECONDS, client.seconds)


class EngineGroupClient(abc.ABC):
    """vLLM's ``VLLMWeightSyncClient`` for several engines. A trainer engine calls it on its own thread.

    The stock client gives every engine the same ``rank_offset``, so independent engines collide in one group, and it does not
    pass on the version. Here the ranks of engine i follow those of engines 0 to i - 1, and ``finish_weight_update`` sends
    ``version``.
    """

    def __init__(self, client: SyncClient) -> None:
        self._client = client
        self.begin(Version(0, 0))

    def begin(self, version: Version) -> None:
        """Start a round. ``version`` is what ``finish_weight_update`` will send."""
        self.version = version
        self.failure: Future[None] = Future()  # the error of a call, while the trainer engine may be blocked in its own part
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
        """The trainer engine's part is over: end a pending call, waiting at most ``seconds`` for it."""

    @abc.abstractmethod
    def _all(self, verb: str, arguments: Sequence[tuple[Any, ...]]) -> None: ...


class CollectiveClient(EngineGroupClient):
    """For receivers that wait for each other: all of them take part, or the transfer fails.

    If one is missing, the others cannot tell which. So they are told to stop waiting, and a receiver that still does not answer
    is lost.
    """

    def __init__(self, client: SyncClient) -> None:
        super().__init__(client)
        self._given_up = threading.Event()
        self._turn = threading.Lock()  # held during a call

    def give_up(self, seconds: float) -> None:
        self._given_up.set()
        if self._turn.acquire(timeout=seconds):
            self._turn.release()

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._client.call("finish_weight_update", self.version)  # all have their weights, and none waits for another

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
        until = time.monotonic() + grace(client)
        self._stop(calls, until)
        errors = client.settle(calls, until).errors
        if client.lost:  # the other errors are consequences
            raise TransferFailed(dict(client.lost))
        for error in errors:
            if not isinstance(error, TransferAborted):
                raise error
        if errors:
            raise errors[0]

    def _stop(self, calls: Sequence[Call], until: float) -> None:
        """Tell receivers to stop waiting for each other, repeatedly, because some may not have started to wait."""
        waiting = list(calls)
        while (waiting := [c for c in waiting if not c.future.done()]) and time.monotonic() < until:
            for call in waiting:
                self._client.abort(call.index)
            wait([c.future for c in waiting], ASK_AGAIN_SECONDS)


class IndependentClient(EngineGroupClient):
    """For receivers that do not depend on each other: a lost one is left out.

    An error is raised only after the transfer, because the ranks run a collective after each call, which the first rank must
    not miss.
    """

    def _all(self, verb: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        if self.failure.done():
            return
        errors = self._client.settle(self._client.ask(verb, arguments)).errors
        if errors:
            self.failure.set_exception(errors[0])
