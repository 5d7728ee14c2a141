"""vLLM's weight-transfer verbs for several engines at once, as its trainer engines call them."""

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

ABORT_SECONDS = 30.0  # for what a failed transfer has under way, at most
ASK_AGAIN_SECONDS = 0.5


def grace(client: SyncClient) -> float:
    """Seconds for what a failed transfer has under way."""
    return min(ABORT_SECONDS, client.seconds)


class EngineGroupClient(abc.ABC):
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


class CollectiveClient(EngineGroupClient):
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
        until = time.monotonic() + grace(client)
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


class IndependentClient(EngineGroupClient):
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
