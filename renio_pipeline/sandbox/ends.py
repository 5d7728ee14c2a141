"""The two ends of the socket: the program's, which does whatever the tests ask, and the tests', which is on its guard."""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

from renio_pipeline.sandbox import assumed, guard, remote
from renio_pipeline.sandbox.peer import Peer
from renio_pipeline.sandbox.wire import Foreign

_READING = ("read", "readline", "readlines")


class ProgramEnd(Peer):
    """The end beside the program under test. What the tests' functions are given back runs in the tests' interpreter."""

    _sends_output = True

    def __init__(
        self, incoming: BinaryIO, outgoing: BinaryIO, names: Callable[[list[str], str | None], dict[str, Any]]
    ) -> None:
        super().__init__(incoming, outgoing)
        self._names = names

    def _do_names(self, names: list[str], entry: str | None) -> dict[str, Any]:
        return self._names(names, entry)

    def _by_name(self, value: Any) -> Any:
        # The tests take no function by name: what the program returns must run beside the program.
        known = isinstance(value, type) or value is Ellipsis or value is NotImplemented
        return super()._by_name(value) if known else None

    def _do_call(self, function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        value, changed = super()._do_call(function, args, kwargs)
        if isinstance(function, type) and function.__module__ == "program":
            self._reference(value)  # an object with methods, though its class may be derived from list
        return value, changed

    def _found(self, kind: str, name: Any) -> Any:
        if kind == "builtin":
            return getattr(builtins, name)
        return getattr(importlib.import_module(name[0]), name[1])


class Stdin:
    """What a program reads while its tests call it: whatever they have put in the place of standard input."""

    def __init__(self, end: ProgramEnd) -> None:
        self._end = end
        self.buffer = self
        self.encoding = "utf-8"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in _READING:
            raise AttributeError(name)
        return lambda *args: self._end.ask("stdin", name, list(args))

    def __iter__(self) -> Any:
        return iter(self.readline, "")

    def isatty(self) -> bool:
        return False

    def input(self, *prompt: Any) -> Any:
        return self._end.ask("stdin", "input", list(prompt))


class TestsEnd(Peer):
    """The end beside the tests.

    Args:
        names: that the tests use and do not define. Objects of classes with such a name may say what they equal.
        lent: the tests' own names that the program uses and does not define.
    """

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO, names: Iterable[str], lent: Callable[[str], Any]) -> None:
        super().__init__(incoming, outgoing)
        self._names, self._lent = frozenset(names), lent
        self.used = False  # whether the tests have asked anything of the program

    def ask(self, verb: str, *arguments: Any) -> Any:
        self.used = self.used or verb != "names"
        return super().ask(verb, *arguments)

    def _trusts(self, name: str, bases: tuple[type, ...]) -> bool:
        return name in self._names or any(base.__name__ in self._names for base in bases)

    def _may(self, target: Any, verb: str, name: str) -> None:
        if id(target) not in self._references or not guard.may_use(target, verb, name):
            raise guard.RemoteError(f"a program may not {verb} {name} of an object of its tests")

    def _handed_out(self, target: Any) -> Any:
        if id(target) not in self._references:
            raise guard.RemoteError("not an object of the tests")
        return target

    def _do_call(self, function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return super()._do_call(self._handed_out(function), args, kwargs)

    def _do_resume(self, generator: Any, sent: Any, thrown: Any) -> Any:
        return super()._do_resume(self._handed_out(generator), sent, thrown)

    def _do_close(self, generator: Any) -> None:
        super()._do_close(self._handed_out(generator))

    def _do_run(self, coroutine: Any) -> Any:
        return super()._do_run(self._handed_out(coroutine))

    def _do_copy(self, target: Any, deep: bool) -> Any:
        return super()._do_copy(self._handed_out(target), deep)

    def _do_stdin(self, method: str, args: list[Any]) -> Any:
        if method == "input":
            return builtins.input(*args)
        if method not in _READING:
            raise guard.RemoteError(f"no {method} of standard input")
        return getattr(sys.stdin, method)(*args)

    def _do_lent(self, name: str) -> Any:
        return self._lent(name)

    def _described(self, value: Any) -> list[Any]:
        if not guard.may_cross(value):
            raise Foreign(f"a {type(value).__name__} of the tests does not cross")
        return super()._described(value)

    def _found(self, kind: str, name: Any) -> Any:
        return guard.found_builtin(name) if kind == "builtin" else guard.found_in_library(*name)


def resolved(end: TestsEnd, names: list[str], entry: str | None) -> dict[str, Any]:
    """The values of the names that tests use: the program's, or else the assumed ones.

    Raises:
        AssertionError: the program lacks one.
    """
    defined = end.ask("names", sorted({*names, *([entry] if entry else [])}), entry)
    for name in [*names, *([entry] if entry else [])]:
        if name not in defined:
            try:
                defined[name] = assumed.found(name)
            except LookupError:
                raise AssertionError(f"the program lacks {name}, which the tests use") from None
    end.used = any(remote.held(value) is None for value in defined.values())  # a constant is used by being there
    return defined
