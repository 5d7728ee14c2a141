"""The two ends of the socket: the program's, which does whatever the tests ask, and the tests', which is on its guard."""

from __future__ import annotations

import builtins
import io
import os
import sys
from collections.abc import Callable, Collection
from typing import Any, BinaryIO

from renio_pipeline.sandbox.exchange import descriptions, frames, guard, names, remote
from renio_pipeline.sandbox.exchange.belief import Believing
from renio_pipeline.sandbox.exchange.peer import Peer
from renio_pipeline.sandbox.exchange.wire import Foreign

_READING = ("read", "readline", "readlines")
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
        if name not in _READING:
            raise AttributeError(name)
        return lambda *args: self._end.ask("stdin", name, args)

    def __iter__(self) -> Any:
        return iter(self.readline, "")

    def isatty(self) -> bool:
        return False

    def input(self, *prompt: Any) -> Any:
        return self._end.ask("stdin", "input", prompt)


class TestsEnd(Believing):
    """The end beside the tests.

    Args:
        lends: the tests' own names that the program may use.
        lent: the value of such a name.
        seed: of the decoys, see ``Believing``.
    """

    def __init__(
        self, incoming: BinaryIO, outgoing: BinaryIO, *, lends: Collection[str], lent: Callable[[str], Any], seed: int
    ) -> None:
        super().__init__(incoming, outgoing, seed=seed)
        self._lends, self._lent = lends, lent
        self.used = False  # whether the tests have asked anything of the program

    def ask(self, verb: str, *arguments: Any, copies: bool = False) -> Any:
        self.used = self.used or verb != "names"
        return super().ask(verb, *arguments, copies=copies)

    def believed(self, error: type[BaseException]) -> type[BaseException]:
        return guard.believed(error)

    def found(self, module: str, path: str) -> Any:
        return names.found_for_tests(module, path)

    def allow(self, value: Any) -> None:
        if not guard.may_cross(value):
            raise Foreign(f"a {type(value).__name__} of the tests does not cross")

    def foreign(self, value: Any) -> Any:
        try:
            return super().foreign(value)
        except Foreign:
            return {"pickle": _pickled(value).hex()}

    def made(self, kind: str, inner: Any) -> Any:
        return frames.made(kind, self.unpack(inner)) if kind in frames.KINDS else super().made(kind, inner)

    def may(self, target: Any, verb: str, name: str) -> None:
        if not guard.may_use(self._own_object(target), verb, name):
            raise guard.RemoteError(f"a program may not {verb} {name} of an object of its tests")

    def _receive(self) -> list[Any] | None:
        try:
            return super()._receive()
        except Exception:
            os._exit(1)  # no program that plays by the rules says such a thing, and no test may take it for an exception

    def _own_object(self, target: Any) -> Any:
        if id(target) not in self._references:
            raise guard.RemoteError("not an object of the tests")
        return target

    def _do_call(self, function: Any, args: tuple[Any, ...], kwargs: tuple[Any, ...]) -> Any:
        if isinstance(function, type) and not guard.may_cross(function):  # known as the class of an object
            raise guard.RemoteError(f"a program may not call {function.__name__} of its tests")
        return super()._do_call(self._own_object(function), args, kwargs)

    def _do_get(self, target: Any, name: str) -> Any:
        if name == "__dict__":
            self.may(target, "get", name)
            return {key: value for key, value in vars(target).items() if not key.startswith("_")}
        return super()._do_get(target, name)

    def _do_resume(self, generator: Any, sent: Any, thrown: Any) -> Any:
        return super()._do_resume(self._own_object(generator), sent, thrown)

    def _do_close(self, generator: Any) -> None:
        super()._do_close(self._own_object(generator))

    def _do_run(self, awaitable: Any) -> Any:
        return super()._do_run(self._own_object(awaitable))

    def _do_step(self, generator: Any, *parts: Any) -> Any:
        return super()._do_step(self._own_object(generator), *parts)

    def _do_copy(self, target: Any, deep: bool) -> Any:
        return super()._do_copy(self._own_object(target), deep)

    def _do_stdin(self, method: str, args: tuple[Any, ...]) -> Any:
        if method == "input":
            return builtins.input(*args)
        if method not in _READING:
            raise guard.RemoteError(f"no {method} of standard input")
        return getattr(sys.stdin, method)(*args)

    def _do_lent(self, name: str) -> Any:
        if name not in self._lends:
            raise guard.RemoteError(f"the tests lend no {name}")
        return self._lent(name)


def _pickled(value: Any) -> bytes:
    """A value of a library, such as a data frame. The program unpickles it. Raises Foreign."""
    import pickle

    class Pickler(pickle.Pickler):
        def persistent_id(self, inner: Any) -> None:
            if (inner if isinstance(inner, type) else type(inner)).__module__ in ("__main__", "program"):
                raise Foreign(f"a {type(value).__name__} of the tests does not cross")

    if type(value).__module__.split(".")[0] in ("__main__", "program", "unittest", "_io"):
        raise Foreign(f"a {type(value).__name__} of the tests does not cross")
    buffer = io.BytesIO()
    try:
        Pickler(buffer).dump(value)
    except Exception as error:
        raise Foreign(f"a {type(value).__name__} of the tests does not cross") from error
    return buffer.getvalue()
