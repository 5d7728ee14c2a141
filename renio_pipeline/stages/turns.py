"""Turns on the GPUs that generators and trainer ranks share.

    generators: publish, write, evaluate │               asleep               │ publish, write, evaluate ...
    ranks:            out of the way     │ logprobs, train, save a checkpoint │       out of the way

It is the generators' turn except within ``training()``, so nothing has to ask for it, and nothing can forget to return it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol


class Turns(Protocol):
    def training(self) -> AbstractAsyncContextManager[None]:
        """Around everything that the ranks do except a weight sync. The generators first finish what is in flight.

        Turns must not be nested. After an error within one the generators may still sleep: ``Trainers.begin`` wakes them.
        """
        ...


class Apart:
    """Generators and ranks have separate GPUs: neither waits for the other."""

    @asynccontextmanager
    async def training(self) -> AsyncIterator[None]:
        yield
