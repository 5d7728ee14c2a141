"""How objects cross that are not plain data: as references, which the other side sees as remote objects (see ``remote``).

What both sides have anyway, builtins and the standard library's exceptions, crosses by name.
"""

from __future__ import annotations

import types
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator
from enum import Enum
from typing import Any

from renio_pipeline.sandbox import guard, remote
from renio_pipeline.sandbox.wire import Foreign, Wire


class References(Wire):
    """The objects that this side has handed out, and those that it has been handed."""

    def __init__(self) -> None:
        self._own: list[Any] = []  # by reference: what this side has handed out
        self._references: dict[int, int] = {}  # id of such an object: its reference
        self._remote: dict[int, Any] = {}  # by the other side's reference
        self._remote_ids: dict[int, int] = {}  # id of a local stand-in that holds no reference itself: the reference

    def ask(self, verb: str, *arguments: Any) -> Any:
        """Send a request to the other side. Returns its answer, or raises what it raised."""
        raise NotImplementedError

    def pack(self, value: Any) -> Any:
        known = isinstance(value, Enum) or id(value) in self._references
        return self.foreign(value) if known else super().pack(value)

    def foreign(self, value: Any) -> Any:
        if value is remote.END:
            return {"end": None}
        if (held := remote.held(value)) is not None:
            return {"yours": held[1]}
        if id(value) in self._remote_ids:
            return {"yours": self._remote_ids[id(value)]}
        if isinstance(value, guard.RemoteError):
            return {"refused": str(value)}
        if (named := self._by_name(value)) is not None:
            return named
        if isinstance(value, BaseException):
            return {"error": [self._packed_class(value), self._packed_arguments(value), self._reference(value)]}
        return {"mine": [self._reference(value), *self._described(value)]}

    def _by_name(self, value: Any) -> Any:
        """What both sides have: a builtin, or an exception or function of the standard library. None for all else."""
        if name := guard.named_builtin(value):
            return {"builtin": name}
        place = guard.named_in_library(value)
        return {"library": place} if place else None

    def _packed_class(self, error: BaseException) -> Any:
        """Its class, or the nearest base that can cross."""
        for cls in type(error).__mro__:
            try:
                return self.pack(cls)
            except Foreign:
                continue
        raise Foreign("not an exception")

    def _packed_arguments(self, error: BaseException) -> Any:
        try:
            return self.pack(list(error.args))
        except (Foreign, RecursionError):
            return [str(error)]

    def _reference(self, value: Any) -> int:
        known = self._references.get(id(value))
        if known is None:
            known = self._references[id(value)] = len(self._own)
            self._own.append(value)  # for good, so that no other object ever has its id
        return known

    def _described(self, value: Any) -> list[Any]:
        if isinstance(value, type):
            bases = [self.pack(base) for base in value.__bases__ if _can_be_base(base) or issubclass(base, BaseException)]
            special = sorted({m for c in value.__mro__ if c not in (object, BaseException) for m in vars(c) if _is_own(c, m)})
            return ["class", value.__name__, bases, special, value.__doc__ if isinstance(value.__doc__, str) else None]
        for kind, cls in (("generator", Generator), ("coroutine", Coroutine)):
            if isinstance(value, cls):
                return [kind]
        if isinstance(value, types.FunctionType | types.MethodType | types.BuiltinFunctionType):
            return ["function", str(getattr(value, "__name__", "")), value.__doc__]
        if isinstance(value, types.ModuleType | AsyncGenerator):
            raise Foreign(f"a {type(value).__name__} does not cross")
        return ["object", self.pack(type(value)) if _can_be_base(type(value)) else self._plain_class(type(value))]

    def _plain_class(self, cls: type) -> Any:
        """A class of a library, such as ``map``: described, but nothing that could be called."""
        special = {m for c in cls.__mro__ if c is not object for m in vars(c)} & remote.SPECIAL - {*remote.COMPARISONS}
        return {"mine": [self._reference(cls), "class", cls.__name__, [], sorted(special), None]}

    def made(self, kind: str, inner: Any) -> Any:
        if kind == "end":
            return remote.END
        if kind == "yours":
            return self._own[inner]
        if kind in ("builtin", "library"):
            return self._found(kind, inner)
        if kind == "refused":
            return guard.RemoteError(str(inner))
        if kind == "error":
            return self._made_error(*inner)
        if kind != "mine":
            raise ValueError(f"no {kind} can cross")
        reference = inner[0]
        if reference not in self._remote:
            self._remote[reference] = self._made(*inner)
        return self._remote[reference]

    def _found(self, kind: str, name: Any) -> Any:
        raise NotImplementedError

    def _made_error(self, cls: Any, args: Any, reference: int) -> BaseException:
        kind, arguments = self.unpack(cls), self.unpack(args)
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise ValueError("not an exception")
        kind = guard.believed(kind)
        try:
            error = kind(*arguments)
        except Exception:  # its constructor takes other arguments than it keeps
            error = kind.__new__(kind)
            error.args = tuple(arguments)
        return remote.hold(error, self, reference)

    def _made(self, reference: int, kind: str, *detail: Any) -> Any:
        if kind == "class":
            return self._made_class(reference, *detail)
        if kind in ("generator", "coroutine"):
            return self._made_flow(reference, kind)
        if kind == "function":
            name, doc = detail
            made: Any = object.__new__(remote.RemoteFunction)
            made.__dict__.update(__name__=str(name), __qualname__=str(name), __doc__=doc if isinstance(doc, str) else None)
        else:
            cls = self.unpack(detail[0])
            made = object.__new__(cls)
        return remote.hold(made, self, reference)

    def _made_class(self, reference: int, name: Any, bases: Any, special: Any, doc: Any) -> type:
        local = tuple(base for base in map(self.unpack, bases) if isinstance(base, type))
        errors = tuple(base for base in local if issubclass(base, BaseException))
        if errors:
            body = {"__getattr__": remote.RemoteObject.__getattr__, "__module__": "program"}
            cls: type = type(str(name), (guard.believed(errors[0]),), body)
        else:
            mirrored = tuple(base for base in local if remote.held(base) is not None)
            cls = remote.remote_class(
                str(name), mirrored, list(map(str, special)), doc, trusted=self._trusts(str(name), mirrored)
            )
        return remote.hold(cls, self, reference)

    def _trusts(self, name: str, bases: tuple[type, ...]) -> bool:
        return True

    def _made_flow(self, reference: int, kind: str) -> Any:
        stub = remote.hold(object.__new__(remote.RemoteObject), self, reference)
        made = _generator(self, stub) if kind == "generator" else _coroutine(self, stub)
        self._remote_ids[id(made)] = reference
        return made


def _generator(peer: References, stub: Any) -> Iterator[Any]:
    sent, thrown = None, None
    while True:
        yields, value = peer.ask("resume", stub, sent, thrown)
        if not yields:
            return value
        sent, thrown = None, None
        try:
            sent = yield value
        except GeneratorExit:
            peer.ask("close", stub)
            raise
        except Exception as error:
            thrown = error


async def _coroutine(peer: References, stub: Any) -> Any:
    return peer.ask("run", stub)


def _can_be_base(cls: type) -> bool:
    return guard.named_builtin(cls) is None and (issubclass(cls, BaseException) or cls.__module__ in ("program", "__main__"))


def _is_own(cls: type, method: str) -> bool:
    return method in remote.SPECIAL and getattr(cls, method) is not getattr(object, method, None)
