"""The program's end of the socket, which does whatever the tests ask."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from renio_pipeline.sandbox.exchange import descriptions, frames, names, remote, shared
from renio_pipeline.sandbox.exchange.peer import Peer

READING = ("read", "readline", "readlines")  # methods of standard input
Names = Callable[[list[str], str | None], dict[str, Any]]


class ProgramEnd(Peer):
    """The end beside the program under test. What the tests' functions are given back runs in the tests' interpreter.

    Args:
        names: the values of the program's names that the tests use.
    """

    _of_program = True

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO, names: Names) -> None:
        super().__init__(incoming, outgoing)
        self._names = names

    def named(self, value: Any) -> list[str] | None:
        # The tests take no function by name: what the program returns must run beside the program.
        return super().named(value) if names.is_known_to_tests(value) else None

    def compound(self, value: Any) -> Any:
        return super().compound(value) if (frame := frames.packed(value, self.by_value)) is None else frame

    def made(self, kind: str, inner: Any) -> Any:
        if kind == "pickle":
            import pickle  # slow to import, and hardly ever used

            return pickle.loads(bytes.fromhex(inner))
        return super().made(kind, inner)

    def function(self, reference: int, facts: dict[str, Any]) -> Any:
        stub = remote.hold(remote.remote_function(facts), self, reference)
        return self.stands_for(descriptions.made_function(facts, lambda args, kwargs: self.call(stub, args, kwargs)), reference)

    def print(self, *values: Any, **options: Any) -> None:
        """What the program has as ``print``: the tests' own while they have patched it."""
        if options.get("file") is sys.stdout:
            del options["file"]
        if not self._state.print_is_patched or options.get("file") is not None:
            shared.PRINT(*values, **options)
        else:
            self.ask("print", values, tuple(options.items()))

    def _do_names(self, names: list[str], entry: str | None) -> Any:
        return tuple(self._names(names, entry).items())

    def _do_call(self, function: Any, args: tuple[Any, ...], kwargs: tuple[Any, ...]) -> Any:
        value = super()._do_call(function, args, kwargs)
        if isinstance(function, type) and function.__module__ == "program" and type(value) is function:
            self._reference(value)  # an object with methods, though its class may be derived from list
        return value

    def _do_compare(self, target: Any, method: str, row: tuple[Any, ...]) -> Any:
        """What the object says of each value: True, False, or None for anything else."""
        return tuple(_truth(target, method, value) for value in row)


def _truth(target: Any, method: str, value: Any) -> bool | None:
    try:
        found = getattr(type(target), method)(target, value)
    except Exception:
        return None
    plain = found is None or isinstance(found, bool | int | float | str) or type(found).__name__ in ("bool", "bool_")
    return bool(found) if plain else None


class Stdin:
    """What a program reads while its tests call it: whatever they have put in the place of standard input."""

    def __init__(self, end: ProgramEnd) -> None:
        self._end = end
        self.buffer = self
        self.encoding = "utf-8"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in READING:
            raise AttributeError(name)
        return lambda *args: self._end.ask("stdin", name, args)

    def __iter__(self) -> Any:
        return iter(self.readline, "")

    def isatty(self) -> bool:
        return False

    def input(self, *prompt: Any) -> Any:
        return self._end.ask("stdin", "input", prompt)
