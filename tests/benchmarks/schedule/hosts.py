"""Several fakes in one process, where the machine has no room for a process each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actors.cluster.placement import GroupLease
from tests.benchmarks.schedule.engines import Sleeper
from tests.benchmarks.schedule.load import Load


class Host:
    """Several fakes of a kind in one process, where the machine has no room for a process each."""

    def __init__(self, kind: type[Sleeper], load: Load, count: int) -> None:
        self._fakes = [kind(load) for _ in range(count)]

    async def call(self, what: list[Any]) -> Any:
        """``what``: place, verb and arguments in one, since the driver's time goes by how many arguments a call has."""
        place, verb, *args = what
        return await getattr(self._fakes[place], verb)(*args)


@dataclass(frozen=True)
class Guest:
    """A fake in a Host, as if it were an actor: each call of it is one to the host."""

    host: Any
    place: int

    def __getattr__(self, verb: str) -> Verb:
        if verb.startswith("__"):
            raise AttributeError(verb)
        return Verb(self, verb)


@dataclass(frozen=True)
class Verb:
    guest: Guest
    name: str

    def remote(self, *args: Any) -> Any:
        return self.guest.host.call.remote([self.guest.place, self.name, *args])


@dataclass(frozen=True)
class Room:
    """The lease of a guest: the first one's ends the host."""

    lease: GroupLease
    actor: Guest

    def placed(self) -> bool:
        return self.lease.placed()

    def end(self, pid: int) -> None:
        if not self.actor.place:
            self.lease.end(pid)
