"""Whose turn it is on GPUs that generators and trainer ranks share.

    generators: publish, write, evaluate │               asleep               │ publish, write, evaluate ...
    ranks:            out of the way     │ logprobs, train, save a checkpoint │       out of the way

It is the generators' turn, except within ``training()``: nobody has to ask for it, and nobody can forget to hand it back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol


class Turns(Protocol):
    def training(self) -> AbstractAsyncContextManager[None]:
        """Around whatever the ranks do beside a sync. The generators end what they have in flight first.

        One such turn at a time; it must not be asked for within another. After an error in it the generators may still
        sleep: ``Trainers.begin`` wakes them.
        """
        ...


class Apart:
    """Generators and ranks have GPUs of their own: nobody waits for anybody."""

    @asynccontextmanager
    async def training(self) -> AsyncIterator[None]:
        yield
