"""One end of the socket between a program and its tests, each in an interpreter of its own.

Both may call the other: the tests call the program's functions, and the program calls functions that it was handed. While one
waits for an answer, it serves what the other asks. Plain data crosses as it is (``wire``), anything else as a reference, which
the other side sees as a remote object (``remote``). What tests may be asked for is decided by ``guard``.

A list, dictionary, set or array that is changed in place by a call is changed for the caller too. So are the state of
``random`` and what the program prints: the tests capture it as if it were printed beside them.
"""

from __future__ import annotations

import copy
import os
import threading
from typing import Any, BinaryIO

from renio_pipeline.sandbox import guard, remote, shared
from renio_pipeline.sandbox.references import References


class Peer(References):
    """The base of both ends. ``ask`` sends a request and returns what the other side answers, or raises what it raised."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        super().__init__()
        self._incoming, self._outgoing = incoming, outgoing
        self._turn = threading.RLock()
        self._state = shared.State()

    def ask(self, verb: str, *arguments: Any) -> Any:
        with self._turn:
            self._send("ask", verb, list(arguments))
            return self._answer()

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a remote function. What it changes in place in its arguments is changed here as well."""
        value, changed = self.ask("call", function, list(args), kwargs)
        for key, new in changed:
            shared.update(args[key] if isinstance(key, int) else kwargs[key], new)
        return value

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
        except (Exception, SystemExit) as error:
            self._send("raised", error)
            return
        try:
            self._send("answer", value)
        except Exception as error:  # it cannot cross, or packing it runs code of its own that fails
            self._send("raised", guard.RemoteError(str(error)))

    def _send(self, *message: Any) -> None:
        line = self.dumps([*message, self._state.changes(sends_output=self._sends_output)])
        self._outgoing.write(line)
        self._outgoing.flush()

    def _receive(self) -> list[Any] | None:
        line = self._incoming.readline()
        if not line:
            return None
        *message, state = self.loads(line)
        self._state.take(state)
        return message

    # What one side does for the other.
    _sends_output = False

    def _may(self, target: Any, verb: str, name: str) -> None:
        """Raises RemoteError: this side does not let the other do that."""

    def _do_call(self, function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        before = shared.Watched(self, args, kwargs)
        return function(*args, **kwargs), before.changed()

    def _do_get(self, target: Any, name: str) -> Any:
        self._may(target, "get", name)
        return getattr(target, name)

    def _do_set(self, target: Any, name: str, value: Any) -> None:
        self._may(target, "set", name)
        setattr(target, name, value)

    def _do_delete(self, target: Any, name: str) -> None:
        self._may(target, "delete", name)
        delattr(target, name)

    def _do_special(self, target: Any, method: str, args: list[Any]) -> Any:
        if method not in remote.SPECIAL:
            raise AttributeError(method)
        self._may(target, "special", method)
        if method == "__next__":
            return next(target, remote.END)
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

    def _do_run(self, coroutine: Any) -> Any:
        import asyncio  # slow to import, and hardly ever used

        return asyncio.run(coroutine)
