"""Objects of the other interpreter, as a program or its tests see them: functions, classes, instances, iterators, exceptions.

Each is local, has the special methods that the original's class has, and passes every use of it on. Nothing of the other side's
code runs here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

_ARITHMETIC = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "divmod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift",
)  # fmt: skip
_OTHERS = (
    "neg", "pos", "abs", "invert", "round", "trunc", "floor", "ceil", "int", "float", "complex", "index", "bool", "len", "iter",
    "next", "reversed", "getitem", "setitem", "delitem", "call", "enter", "exit", "str", "repr", "format", "bytes", "hash",
)  # fmt: skip
COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__contains__")
SPECIAL = frozenset(
    {f"__{name}__" for name in _OTHERS}
    | {f"__{start}{name}__" for name in _ARITHMETIC for start in ("", "r", "i")}
    | {*COMPARISONS}
)
_OPPOSITE = {"__lt__": "__gt__", "__le__": "__gt__", "__gt__": "__lt__", "__ge__": "__lt__"}
_HELD = "_renio_held"  # (peer, reference), in the dictionary of each remote object and class


class _End:
    """What a remote iterator yields when it has ended: a StopIteration must not cross by accident."""


END: Any = _End()


def held(value: Any) -> Any:
    """(peer, reference) of a remote object; None for all else."""
    try:
        return vars(value).get(_HELD)
    except TypeError:
        return None


class RemoteObject:
    """An instance in the other interpreter."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == _HELD:  # NumPy, for one, asks for addresses in memory by such names
            raise AttributeError(name)
        return _peer(self).ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _peer(self).ask("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        _peer(self).ask("delete", self, name)

    def __copy__(self) -> Any:
        return _peer(self).ask("copy", self, False)

    def __deepcopy__(self, memo: Any) -> Any:
        return _peer(self).ask("copy", self, True)


class RemoteFunction(RemoteObject):
    """A function or method in the other interpreter."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _peer(self).call(self, args, kwargs)


class RemoteType(type):
    """The class of the local classes that stand for the other interpreter's."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if _HELD not in vars(cls):  # a local exception class made from one of the other side's
            return super().__call__(*args, **kwargs)
        return _peer(cls).call(cls, args, kwargs)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__") or held(cls) is None:
            raise AttributeError(name)
        return _peer(cls).ask("get", cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        if name.startswith("__") or name == _HELD:
            super().__setattr__(name, value)
        else:
            _peer(cls).ask("set", cls, name, value)

    # Those of enumerations.
    def __iter__(cls) -> Any:
        return _peer(cls).ask("special", cls, "__iter__", [])

    def __len__(cls) -> Any:
        return _peer(cls).ask("special", cls, "__len__", [])

    def __getitem__(cls, key: Any) -> Any:
        return _peer(cls).ask("special", cls, "__getitem__", [key])

    def __contains__(cls, value: Any) -> Any:
        return value in list(cls)

    def __bool__(cls) -> bool:
        return True


def hold(target: Any, peer: Any, reference: int) -> Any:
    """Make a new local object stand for the other side's object of this reference."""
    if isinstance(target, type):
        type.__setattr__(target, _HELD, (peer, reference))
    else:
        object.__setattr__(target, _HELD, (peer, reference))
    return target


def remote_class(name: str, bases: tuple[type, ...], special: list[str], doc: str | None, *, trusted: bool) -> type:
    """A local class for one of the other side's.

    Args:
        special: the names of the special methods that it defines. Those that are not in ``SPECIAL`` are ignored.
        trusted: whether its instances may say themselves what they equal, contain and precede, also among plain data.
    """
    body: dict[str, Any] = {"__doc__": doc, "__module__": "program", "__slots__": (), "__hash__": object.__hash__}
    for method in special:
        if method in COMPARISONS:
            body[method] = _comparison(method, trusted=trusted)
        elif method in SPECIAL:
            body[method] = _passed_on(method)
    if "__eq__" in special and "__hash__" not in special:
        body["__hash__"] = None
    del body["__slots__"]
    return RemoteType(name, bases or (RemoteObject,), body)


def _passed_on(method: str) -> Callable[..., Any]:
    def special(self: Any, *args: Any) -> Any:
        return _peer(self).ask("special", self, method, list(args))

    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _peer(self).call(self, args, kwargs)

    def following(self: Any) -> Any:
        if (value := special(self)) is END:
            raise StopIteration
        return value

    return {"__call__": called, "__next__": following}.get(method, special)


def _comparison(method: str, *, trusted: bool) -> Callable[[Any, Any], Any]:
    """How a remote object compares with plain data, which decides whether a result is right.

    One whose class the tests do not name equals none, whatever it claims. One that they name may, unless it says so of
    anything.
    """

    def compare(self: Any, other: Any) -> Any:
        def ask(name: str, *args: Any) -> Any:
            return _peer(self).ask("special", self, name, list(args))

        if held(other) is not None or (held(type(other)) is not None):
            return ask(method, other)
        if not trusted:
            return _unheard(method, self, other)
        found = ask(method, other)
        if not isinstance(found, bool):
            return NotImplemented
        if method in ("__eq__", "__contains__"):
            return found and not any(ask(method, nonce) is True for nonce in _nonces())
        if method == "__ne__":
            return found or any(ask(method, nonce) is False for nonce in _nonces())
        return found and ask(_OPPOSITE[method], other) is not True

    return compare


def _unheard(method: str, self: Any, other: Any) -> Any:
    if method != "__contains__":
        return NotImplemented
    return any(item is other or item == other for item in self)


def _nonces() -> tuple[Any, ...]:
    number = int.from_bytes(os.urandom(8), "big") + 2**64
    return number, str(number), (number,), [number]


def _peer(value: Any) -> Any:
    peer, _ = vars(value)[_HELD]
    return peer
