"""Objects of the other interpreter, as a program or its tests see them: functions, classes, instances and iterators.

Each is local, has the special methods that the original's class has, and passes every use of it on. Nothing of the other side's
code runs here. Exceptions are in ``errors``, generators and coroutines in ``flows``.
"""

from __future__ import annotations

import types
from typing import Any

UNARY = ("neg", "pos", "abs", "invert", "round", "trunc", "floor", "ceil", "int", "float", "complex", "index")
_BINARY = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "divmod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift",
)  # fmt: skip
_OTHERS = (
    "bool", "len", "iter", "next", "reversed", "getitem", "setitem", "delitem", "call", "enter", "exit", "str", "repr",
    "format", "bytes", "hash", "aenter", "aexit", "aiter", "anext", "await", "fspath", "length_hint",
)  # fmt: skip
COMPARISONS = frozenset(f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge", "contains"))
ARITHMETIC = frozenset(f"__{start}{name}__" for name in _BINARY for start in ("", "r", "i"))
SPECIAL = COMPARISONS | ARITHMETIC | {f"__{name}__" for name in (*UNARY, *_OTHERS)}
_HELD, _CLASS_HELD = "_renio_held", "_renio_class_held"  # (peer, reference) of an instance, of a class
FIELDS = "__dataclass_fields__"


class _End:
    """What a remote iterator yields when it has ended: a StopIteration must not cross by accident."""


END: Any = _End()


def held(value: Any) -> tuple[Any, int] | None:
    """(peer, reference) of a remote object or class. None for all else."""
    if isinstance(value, type):
        return vars(value).get(_CLASS_HELD)
    return object.__getattribute__(value, _HELD) if issubclass(type(value), RemoteObject) else None


def hold(target: Any, peer: Any, reference: int) -> Any:
    """Make a new local object or class stand for the other side's object of this reference. Returns it."""
    if isinstance(target, type):
        type.__setattr__(target, _CLASS_HELD, (peer, reference))
    else:
        object.__setattr__(target, _HELD, (peer, reference))
    return target


def peer_of(value: Any) -> Any:
    """The end through which a remote object is used. Raises TypeError: it is not remote."""
    return held(value)[0]  # type: ignore[index]


def reference_of(value: Any) -> int:
    return held(value)[1]  # type: ignore[index]


class RemoteObject:
    """An instance in the other interpreter."""

    __slots__ = (_HELD, "__weakref__")

    def __getattr__(self, name: str) -> Any:
        if name == FIELDS:
            return getattr(type(self), name)
        if name.startswith("__") and name.endswith("__"):  # NumPy, for one, asks for addresses in memory by such names
            raise AttributeError(name)
        return peer_of(self).ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        peer_of(self).ask("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        peer_of(self).ask("delete", self, name)

    def __bool__(self) -> bool:  # of a class that has no such method
        return bool(peer_of(self).is_true(self))

    def __copy__(self) -> Any:
        return peer_of(self).ask("copy", self, False)

    def __deepcopy__(self, memo: Any) -> Any:
        return peer_of(self).ask("copy", self, True)

    def __dir__(self) -> Any:
        return peer_of(self).ask("names_in", self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"a {type(self).__name__} of the other interpreter cannot be pickled")

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        return peer_of(self).ask("get", self, "__dict__")


class RemoteFunction(RemoteObject):  # a docstring here would be taken for the function's
    __slots__ = ("_renio_facts",)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return peer_of(self).call(self, args, kwargs)

    def __get__(self, instance: Any, owner: Any) -> Any:  # where tests have put it into a class of theirs
        return types.MethodType(self, instance) if instance is not None and self.__class__ is types.FunctionType else self

    def __getattr__(self, name: str) -> Any:
        known = self._renio_facts.get(name)
        return super().__getattr__(name) if known is None else known

    @property
    def __doc__(self) -> Any:  # type: ignore[override]
        return self._renio_facts["__doc__"]

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self._renio_facts["class"]


def remote_function(facts: dict[str, Any]) -> RemoteFunction:
    """``facts`` is what ``descriptions.of_function`` says of it."""
    name, made = str(facts["name"]), object.__new__(RemoteFunction)
    code = (lambda: None).__code__.replace(co_flags=int(facts["flags"]))  # asyncio.iscoroutinefunction looks at it
    kind = {"function": types.FunctionType, "method": types.MethodType}.get(facts["kind"], types.BuiltinFunctionType)
    known = {"class": kind, "__name__": name, "__qualname__": name, "__doc__": facts["doc"], "__code__": code}
    object.__setattr__(made, "_renio_facts", known)
    return made
