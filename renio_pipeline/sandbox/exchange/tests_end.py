"""The tests' end of the socket, which is on its guard."""

from __future__ import annotations

import builtins
import io
import os
import sys
from collections.abc import Callable, Collection
from typing import Any, BinaryIO

from renio_pipeline.sandbox.exchange import frames, guard, names
from renio_pipeline.sandbox.exchange.belief import Believing
from renio_pipeline.sandbox.exchange.program_end import READING
from renio_pipeline.sandbox.exchange.wire import Foreign


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
        if method not in READING:
            raise guard.RemoteError(f"no {method} of standard input")
        return getattr(sys.stdin, method)(*args)

    def _do_print(self, values: tuple[Any, ...], options: tuple[Any, ...]) -> None:
        builtins.print(*values, **dict(options))

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
