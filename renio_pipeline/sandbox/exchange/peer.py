"""One end of the socket between a program and its tests, each in an interpreter of its own.

Both may call the other: the tests call the program's functions, and the program calls functions that it was handed. While one
waits for an answer, it serves what the other asks. Data crosses as it is (``wire``), containers are shared (``containers``),
and everything else crosses as a reference, which the other side sees as a remote object (``references``). What tests may be
asked for is decided by ``guard``. Each message begins with the changes of what both have: containers, random numbers, output.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

from renio_pipeline.sandbox.exchange import flows, guard, remote, shared
from renio_pipeline.sandbox.exchange.references import References

_DEEP = 20_000  # calls while a message is encoded or decoded


@contextlib.contextmanager
def _deeply() -> Iterator[None]:
    """What Python can nest crosses: each level of it takes several calls to encode."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _DEEP))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


class Peer(References):
    """The base of both ends. ``ask`` sends a request and returns what the other side answers, or raises what it raised."""

    _of_program = False

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        super().__init__()
        self._incoming, self._outgoing = incoming, outgoing
        self._turn = threading.RLock()
        self._state = shared.State(of_program=self._of_program)
        self._unsent: list[Any] = []  # changes that were encoded with a message that was not
        self._loops = flows.Loops()

    def ask(self, verb: str, *arguments: Any, copies: bool = False) -> Any:
        """``copies``: whether containers among the arguments arrive as copies."""
        with self._turn:
            self._send("ask", verb, arguments, copies=copies)
            return self._answer()

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function or class of the other side."""
        return self.ask("call", function, args, tuple(kwargs.items()))

    def use(self, target: Any, method: str, args: tuple[Any, ...]) -> Any:
        """Call a special method of an object of the other side."""
        return self.ask("special", target, method, args)

    def is_true(self, target: Any) -> bool:
        """The truth value of an object of the other side whose class does not say."""
        return not any("__len__" in vars(cls) for cls in type(target).__mro__) or len(target) > 0

    async def awaited(self, target: Any) -> Any:
        """Await an object of the other side."""
        return self.ask("run", target)

    def serve(self) -> None:
        """Answer the other side until it hangs up."""
        while (message := self._receive()) is not None:
            self._reply(message)

    def _answer(self) -> Any:
        while True:
            message = self._receive()
            if message is None:
                os._exit(1)  # the other side is gone; no handler of this side's code may take that for anything else
            kind, *content = message
            if kind == "answer":
                return content[0]
            if kind == "raised":
                raise content[0]
            self._reply(message)

    def _reply(self, message: list[Any]) -> None:
        _, verb, arguments = message
        try:
            value = getattr(self, f"_do_{verb}")(*arguments)
        except BaseException as error:
            self._send("raised", error)
            return
        try:
            self._send("answer", value)
        except Exception as error:  # it cannot cross, or packing it runs code of its own that fails
            self._send("raised", guard.RemoteError(str(error)))

    def _send(self, *message: Any, copies: bool = False) -> None:
        with self._turn:
            changes, self._unsent = [*self._unsent, *self.changes()], []
            before = self.position()
            pack = self.by_value if copies else self.pack
            state = self.by_value(self._state.changes())
            try:
                with _deeply():
                    line = json.dumps([changes, state, *map(pack, message)]).encode()
            except BaseException:
                self.take_back(*before)
                self._unsent = changes
                raise
            self._outgoing.write(line + b"\n")
            self._outgoing.flush()

    def _receive(self) -> list[Any] | None:
        line = self._incoming.readline()
        if not line:
            return None
        with _deeply():
            changes, state, *message = json.loads(line)
            self.take(changes)
            decoded = [self.unpack(part) for part in (state, *message)]
        self._state.take(decoded[0])
        return decoded[1:]

    # What one side does for the other.
    def may(self, target: Any, verb: str, name: str) -> None:
        """Raises RemoteError: this side does not let the other do that."""

    def _do_call(self, function: Any, args: tuple[Any, ...], kwargs: tuple[Any, ...]) -> Any:
        return function(*args, **dict(kwargs))

    def _do_get(self, target: Any, name: str) -> Any:
        self.may(target, "get", name)
        return getattr(target, name)

    def _do_set(self, target: Any, name: str, value: Any) -> None:
        self.may(target, "set", name)
        setattr(target, name, value)

    def _do_delete(self, target: Any, name: str) -> None:
        self.may(target, "delete", name)
        delattr(target, name)

    def _do_names_in(self, target: Any) -> Any:
        self.may(target, "get", "names")
        return tuple(dir(target))

    def _do_special(self, target: Any, method: str, args: tuple[Any, ...]) -> Any:
        if method not in remote.SPECIAL:
            raise AttributeError(method)
        self.may(target, "special", method)
        if method == "__next__":
            return next(target, remote.END)
        if method == "__getitem__" and isinstance(target, type):  # an enumeration's or a generic class's
            return target[args[0]]  # type: ignore[index]
        return getattr(type(target), method)(target, *args)

    def _do_copy(self, target: Any, deep: bool) -> Any:
        return copy.deepcopy(target) if deep else copy.copy(target)

    def _do_resume(self, generator: Any, sent: Any, thrown: Any) -> Any:
        """(whether it yields, what it yields or returns)."""
        try:
            return True, generator.throw(thrown) if thrown is not None else generator.send(sent)
        except StopIteration as end:
            return False, end.value

    def _do_close(self, generator: Any) -> None:
        generator.close()

    def _do_run(self, awaitable: Any) -> Any:
        return self._loops.run(awaitable)

    def _do_step(self, generator: Any, sent: Any, thrown: Any, close: bool = False) -> Any:
        """What an asynchronous generator yields next, or END."""
        if close:
            return self._loops.run(generator.aclose())
        return self._loops.run(generator.asend(sent) if thrown is None else generator.athrow(thrown))
