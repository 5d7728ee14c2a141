"""Calls to the receivers of a weight sync. One that dies or hangs is left out, and is not waited for again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from typing import Any

from actors.errors import GONE, EngineFailed

LOOK_SECONDS = 0.2  # between two looks whether the caller has given up
Ask = Callable[..., "Future[Any]"]  # ask(receiver, verb, *arguments) -> the answer to come


def ask_actor(actor: Any, verb: str, *arguments: Any) -> Future[Any]:
    answer: Future[Any] = getattr(actor, verb).remote(*arguments).future()
    return answer


class Call:
    """One receiver's answer to come, and when it came."""

    def __init__(self, index: int, verb: str, future: Future[Any]) -> None:
        self.index, self.verb, self.future = index, verb, future
        self.started = time.monotonic()
        self._ended: float | None = None
        future.add_done_callback(self._end)

    def _end(self, _: Future[Any]) -> None:
        self._ended = time.monotonic()

    @property
    def seconds(self) -> float:
        """Until the answer, or until now."""
        return (time.monotonic() if self._ended is None else self._ended) - self.started


@dataclass(frozen=True)
class Answers:
    values: list[Any]
    errors: list[BaseException]  # of receivers that are well and refuse


class SyncClient:
    """The receivers of a sync, each an actor with its own number of workers.

    A receiver is lost when it has died, when its engine has failed, or when it has not answered in time: ``lost`` says why,
    by its place in ``engines``. It may hold a part of new weights, so it is asked for nothing more, in later rounds neither;
    a client with other receivers takes this one's place.

    Args:
        engines: the receivers.
        workers: of each, TP x PP.
        seconds: what each may take over a round, the sender's own work in between not counted.
        ask: how a receiver is called.
    """

    def __init__(self, engines: Sequence[Any], workers: Sequence[int], *, seconds: float, ask: Ask = ask_actor) -> None:
        self.engines, self.workers, self.seconds = list(engines), list(workers), seconds
        self.lost: dict[int, str] = {}
        self._ask = ask
        self.begin()

    @property
    def world_size(self) -> int:
        """Of a transfer group: the sending rank and every worker of every engine."""
        return 1 + sum(self.workers)

    def begin(self) -> None:
        """A new round: every receiver has its time again."""
        self._left = [self.seconds] * len(self.engines)

    def call(self, verb: str, *arguments: Any) -> list[Any]:
        """What the receivers that are left answer, now that some may have been lost.

        Raises:
            Exception: of a receiver that is well and refuses, as it raised it.
        """
        return self.values(self.ask(verb, [arguments] * len(self.engines)))

    def values(self, calls: Sequence[Call]) -> list[Any]:
        """What the receivers that are left answer to calls under way. Raises as ``call`` does."""
        answers = self.settle(calls)
        if answers.errors:
            raise answers.errors[0]
        return answers.values

    def ask(self, verb: str, arguments: Sequence[tuple[Any, ...]]) -> list[Call]:
        """Call every receiver that is left, each with its own arguments."""
        left = [i for i in range(len(self.engines)) if i not in self.lost]
        return [Call(i, verb, self._ask(self.engines[i], verb, *arguments[i])) for i in left]

    def abort(self, index: int) -> None:
        """Tell a receiver not to wait for others any longer. Its answer is to the call under way."""
        self._ask(self.engines[index], "abort_weight_update")

    def all_well(self, calls: Sequence[Call], given_up: Callable[[], bool]) -> bool:
        """Wait until all have answered, one has failed, the first one's time is over, or the caller has given up.

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
        """Wait for every answer as long as its receiver has time, or ``until`` this moment of ``time.monotonic``."""
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
    """Why a receiver that raised this is lost; None if it is well and refuses."""
    if isinstance(error, GONE):
        return f"died: {_first_line(error)}"
    if isinstance(error, EngineFailed):
        return f"its engine failed: {_first_line(getattr(error, 'cause', error))}"
    if isinstance(error, TimeoutError):
        return f"ran out of time: {_first_line(getattr(error, 'cause', error))}"
    return None


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0]
