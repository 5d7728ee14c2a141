"""Requests and weight updates, both at random times, and what may become of each request."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from actors.errors import EngineFailed
from tests.async_engine.device import DEADLINE
from tests.async_engine.driving import Rig
from tests.async_engine.stub_worker import HALVES
from tests.async_engine.tokens import check_output, check_written

UNDER_WAY = 24  # requests at most


@dataclass(frozen=True)
class State:
    """What the driver has done so far, when a request is submitted or ends. None: it is doing it, so either is right."""

    cancels: int = 0
    invalidations: int = 0
    invalid: bool | None = False
    asleep: bool | None = False


@dataclass(frozen=True)
class Wish:
    future: Future[Any]
    length: int
    since: State


class Chaos:
    """``run`` submits requests and at the same time updates, fails updates, cancels and sleeps; ``outcomes`` judges them.

    Args:
        keep: requests go on across an update; otherwise it waits for them, as the pool does.
    """

    def __init__(self, rig: Rig, seed: int, *, keep: bool) -> None:
        self.rig, self.keep = rig, keep
        self.wishes: list[Wish] = []
        self.number = 0  # of the last update that was begun
        self._acting, self._asking = random.Random(seed), random.Random(-1 - seed)
        self._cancels = self._invalidations = 0
        self._invalid: bool | None = False
        self._asleep: bool | None = False
        self._may_ask = asyncio.Event()
        self._may_ask.set()

    async def run(self, actions: int) -> None:
        asking = asyncio.create_task(self._ask())
        kinds = [self._update, self._update, self._update, self._invalidate, self._cancel_update, self._cancel_all, self._sleep]
        for _ in range(actions):
            await self._go_on()
            await self._acting.choice(kinds)()
        asking.cancel()
        await self._update()
        self._want(5, 0)  # it serves
        await asyncio.gather(*(asyncio.wrap_future(wish.future) for wish in self.wishes), return_exceptions=True)

    def outcomes(self) -> Counter[str]:
        """How the requests ended. Raises AssertionError if one did not end as it must."""
        return Counter(self._outcome(wish) for wish in self.wishes)

    def _outcome(self, wish: Wish) -> str:
        error = wish.future.exception(DEADLINE)
        if error is None:
            self._check_response(wish)
            return "answered"
        text = str(error)
        if isinstance(error, EngineFailed):
            assert "a weight update failed half way" in text, text
            assert wish.since.invalid is not False or self._invalidations > wish.since.invalidations, "no update failed"
            return "invalid"
        if "cancelled" in text:
            assert self._cancels > wish.since.cancels, "nobody cancelled it"
            return "cancelled"
        assert "the engine sleeps" in text, text
        assert wish.since.asleep is not False, "the engine was awake"
        return "refused"

    def _check_response(self, wish: Wish) -> None:
        assert wish.since.invalid is not True, "it was sampled from weights that were not whole"
        output = wish.future.result()
        versions = check_output(output)
        assert len(versions) == wish.length
        assert versions == sorted(versions)
        assert versions == check_written(self.rig.generator._written(0, output))
        assert self.keep or len(set(versions)) == 1

    async def _go_on(self) -> None:
        """Let some batches go by, however busy the machine is. While no request is served, there may be none."""
        if self._invalid is False:
            goal = self.rig.device.launched + self._acting.randint(0, 25)
            await self.rig.until(lambda: self.rig.device.launched >= goal)
        else:
            await asyncio.sleep(0.01)

    async def _ask(self) -> None:
        while True:
            await self._may_ask.wait()
            if sum(not wish.future.done() for wish in self.wishes) < UNDER_WAY:
                for _ in range(self._asking.randint(1, 5)):
                    self._want(self._asking.randint(1, 70), self._asking.choice([0, 0, self._asking.randint(1, 40)]))
            await asyncio.sleep(self._asking.uniform(0, 0.01))

    def _want(self, most: int, ends_after: int) -> None:
        prompt = [*range(20, 20 + self._asking.randint(0, 30)), self._asking.randint(2, 19)]  # some have a beginning in common
        request = self.rig.request(most, ends_after=ends_after, prompt=prompt)
        since = State(self._cancels, self._invalidations, self._invalid, self._asleep)
        (future,) = self.rig.submit(request)
        self.wishes.append(Wish(future, min(most, ends_after or most), since))

    @asynccontextmanager
    async def _paused(self) -> AsyncIterator[None]:
        """As the pool's: with ``drain`` it begins when nothing is under way, and nothing is asked for meanwhile."""
        if self.keep:
            yield
            return
        self._may_ask.clear()
        await asyncio.gather(*(asyncio.wrap_future(wish.future) for wish in self.wishes), return_exceptions=True)
        try:
            yield
        finally:
            self._may_ask.set()

    async def _update(self) -> None:
        async with self._paused():
            self.number += 1
            await self.rig.generator.start_weight_update()
            await self.rig.load(self.number, seconds=self._acting.uniform(0, 0.005))
            if self._invalid is not False:
                self._invalid = None
            await self.rig.finish(self.number)
            self._invalid = False

    async def _invalidate(self) -> None:
        """An update of which nothing, a half or all arrives, and which then fails or is aborted."""
        async with self._paused():
            self.number += 1
            await self.rig.generator.start_weight_update()
            arrived = HALVES[: self._acting.randint(0, len(HALVES))]
            await self.rig.load(self.number, arrived, seconds=self._acting.uniform(0, 0.005))
            self._invalidations, self._invalid = self._invalidations + 1, None
            if len(arrived) == len(HALVES) or self._acting.random() < 0.5:
                await self.rig.generator.abort_weight_update()
            else:
                with pytest.raises(RuntimeError, match="did not reach"):
                    await self.rig.finish(self.number)
            self._invalid = True

    async def _cancel_update(self) -> None:
        async with self._paused():
            self.number += 1
            self._invalidations, self._invalid = self._invalidations + 1, None  # it may be over before it is cancelled
            update = asyncio.create_task(self.rig.update(self.number, seconds=0.001))
            await asyncio.sleep(self._acting.uniform(0, 0.01))
            update.cancel()
            await asyncio.gather(update, return_exceptions=True)

    async def _cancel_all(self) -> None:
        self._cancels += 1
        await self.rig.generator.cancel_all()
        self._cancels += 1  # of those that were submitted meanwhile, too

    async def _sleep(self) -> None:
        self._asleep = None
        (refused,) = await asyncio.gather(self.rig.generator.sleep(), return_exceptions=True)
        if refused is None:
            await asyncio.sleep(self._acting.uniform(0, 0.005))
        else:
            assert "idle, but" in str(refused)
        await self.rig.generator.wake_up()
        self._asleep = False
