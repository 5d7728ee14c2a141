"""Calls to the receivers of a weight sync. A receiver that dies or hangs is left out of later calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from typing import Any

from actors.errors import GONE, EngineFailed, plain_reason

LOOK_SECONDS = 0.2  # between two checks whether the caller has given up
Ask = Callable[..., "Future[Any]"]  # ask(receiver, method, *arguments) -> the pending answer


def ask_actor(actor: Any, verb: str, *arguments: Any) -> Future[Any]:
    answer: Future[Any] = getattr(actor, verb).remote(*arguments).future()
    return answer


class Call:
    """A pending call to one receiver, and how long it took."""

    def __init__(self, index: int, verb: str, future: Future[Any]) -> None:
        self.index, self.verb, self.future = index, verb, future
        self.started = time.monotonic()
        self._ended: float | None = None
        future.add_done_callback(self._end)

    def _end(self, _: Future[Any]) -> None:
        self._ended = time.monotonic()

    @property
    def seconds(self) -> float:
        """From the call to its answer, or until now."""
        return (time.monotonic() if self._ended is None else self._ended) - self.started


@dataclass(frozen=True)
class Answers:
    values: list[Any]
    errors: list[BaseException]  # raised by healthy receivers


class SyncClient:
    """The receivers of a weight sync: actors, each with its own number of engine workers.

    A receiver is lost when it died, when its engine failed, or when it did not answer in time. ``lost`` has the reason, by the
    receiver's index in ``engines``. A lost receiver may hold incomplete weights, so it is not called again, in later rounds
    either. A client with other receivers replaces this one.

    Args:
        engines: the receivers.
        workers: the number of workers of each, TP x PP.
        seconds: the time each receiver has in a round, not counting the sender's own work in between.
        ask: how to call a receiver.
    """

    def __init__(self, engines: Sequence[Any], workers: Sequence[int], *, seconds: float, ask: Ask = ask_actor) -> None:
        self.engines, self.workers, self.seconds = list(engines), list(workers), seconds
        self.lost: dict[int, str] = {}
        self._ask = ask
        self.begin()

    @property
    def world_size(self) -> int:
        """The size of a transfer group: the sending rank and every worker of every engine."""
        return 1 + sum(self.workers)

    def begin(self) -> None:
        """Start a round: every receiver has its full time again."""
        self._left = [self.seconds] * len(self.engines)

    def call(self, verb: str, *arguments: Any) -> list[Any]:
        """Call every remaining receiver and return the answers. Receivers may be lost on the way.

        Raises:
            Exception: a healthy receiver refused; the error is the receiver's own.
        """
        return self.values(self.ask(verb, [arguments] * len(self.engines)))

    def values(self, calls: Sequence[Call]) -> list[Any]:
        """The answers to pending calls, without those of lost receivers. Raises as ``call`` does."""
        answers = self.settle(calls)
        if answers.errors:
            raise answers.errors[0]
        return answers.values

    def ask(self, verb: str, arguments: Sequence[tuple[Any, ...]]) -> list[Call]:
        """Start a call to every remaining receiver, each with its own arguments."""
        left = [i for i in range(len(self.engines)) if i not in self.lost]
        return [Call(i, verb, self._ask(self.engines[i], verb, *arguments[i])) for i in left]

    def abort(self, index: int) -> None:
        """Tell a receiver to stop waiting for others. The pending call then returns."""
        self._ask(self.engines[index], "abort_weight_update")

    def all_well(self, calls: Sequence[Call], given_up: Callable[[], bool]) -> bool:
        """Wait until all have answered, one has failed, the first deadline has passed, or the caller gives up.

        Returns whether all have answered.
        """
        until = min((call.started + self._left[call.index] for call in calls), default=0.0)
        futures = [call.future for call in calls]
        while (left := until - time.monotonic()) > 0 and not given_up():
            done, under_way = wait(futures, min(left, LOOK_SECONDS), FIRST_EXCEPTION)
            if not under_way or any(future.exception() for future in done):
                break
        return all(future.done() and future.exception() is None for future in futures)

    def settle(self, calls: Sequence[Call], until: float | None = None) -> Answers:
        """Wait for each answer until its receiver's deadline, or ``until``, a value of ``time.monotonic``."""
        values: list[Any] = []
        errors: list[BaseException] = []
        for call in calls:
            deadline = call.started + self._left[call.index] if until is None else until
            try:
                values.append(call.future.result(max(0.0, deadline - time.monotonic())))
            except Exception as error:
                reason = why_lost(error) if call.future.done() else f"did not answer {call.verb} in time"
                if reason is None:
                    errors.append(error)
                else:
                    self.lost[call.index] = reason
            self._left[call.index] -= call.seconds
        return Answers(values, errors)


def why_lost(error: BaseException) -> str | None:
    """Why a receiver that raised this error is lost. None: it is healthy, and the error is its refusal."""
    if isinstance(error, GONE):
        return f"died: {plain_reason(error)}"
    if isinstance(error, EngineFailed):
        return f"its engine failed: {_first_line(getattr(error, 'cause', error))}"
    if isinstance(error, TimeoutError):
        return f"ran out of time: {_first_line(getattr(error, 'cause', error))}"
    return None


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0]
