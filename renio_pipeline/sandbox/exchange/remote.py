"""Objects of the other interpreter, as a program or its tests see them: functions, classes, instances and iterators.

Each is local, has the special methods that the original's class has, and passes every use of it on. Nothing of the other side's
code runs here. Exceptions are in ``errors``, generators and coroutines in ``flows``.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
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
_MODULES_OF_KIN = (
    "abc", "builtins", "collections", "contextlib", "datetime", "enum", "io", "logging", "matplotlib", "networkx", "numbers",
    "numpy", "pandas", "queue", "re", "threading", "types",
)  # fmt: skip
_CROSS_AS_DATA = ("DataFrame", "Series", "Index", "ndarray", "generic")  # of these libraries: an object is none of them
_HELD, _CLASS_HELD = "_renio_held", "_renio_class_held"  # (peer, reference) of an instance, of a class
_FIELDS = "__dataclass_fields__"


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
        if name == _FIELDS:
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


class RemoteType(type):
    """The class of the local classes that stand for the other interpreter's."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return peer_of(cls).call(cls, args, kwargs)

    def __getattr__(cls, name: str) -> Any:
        if held(cls) is None or (name.startswith("__") and name.endswith("__") and name not in ("__members__", _FIELDS)):
            raise AttributeError(name)
        return _dataclass_fields(cls) if name == _FIELDS else peer_of(cls).ask("get", cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        if name.startswith("__"):
            super().__setattr__(name, value)
        else:
            peer_of(cls).ask("set", cls, name, value)

    def __delattr__(cls, name: str) -> None:
        peer_of(cls).ask("delete", cls, name)

    def __dir__(cls) -> Any:
        return peer_of(cls).ask("names_in", cls)

    # Those of enumerations, and of generic classes such as Stack[int].
    def __iter__(cls) -> Any:
        return peer_of(cls).ask("special", cls, "__iter__", [])

    def __len__(cls) -> Any:
        return peer_of(cls).ask("special", cls, "__len__", [])

    def __getitem__(cls, key: Any) -> Any:
        return peer_of(cls).ask("special", cls, "__getitem__", [key])

    def __contains__(cls, value: Any) -> Any:
        return value in list(cls)

    def __bool__(cls) -> bool:
        return True


def remote_class(facts: dict[str, Any], bases: tuple[type, ...]) -> type:
    """A local class for one of the other side's.

    Args:
        facts: what ``descriptions.of_class`` says of it. To ``isinstance``, its objects are its kin's as well.
        bases: the local classes of those that it is derived from.
    """
    special = [str(method) for method in facts["special"] if method in SPECIAL]
    body: dict[str, Any] = {"__doc__": facts["doc"], "__module__": "program", "__slots__": (), "__hash__": object.__hash__}
    body |= {method: _passed_on(method) for method in special}
    if "__eq__" in special and "__hash__" not in special:
        body["__hash__"] = None
    if facts["match"]:
        body["__match_args__"] = tuple(map(str, facts["match"]))
    if facts["kin"]:
        module, kin = map(str, facts["kin"])
        body["__class__"] = property(lambda self: _kin(type(self), module, kin))
    body["_renio_fields"], body["_renio_foreign"] = facts["fields"], facts["foreign"]
    return RemoteType(str(facts["name"]), bases or (RemoteObject,), body)


def is_subclass(cls: Any, kinds: Any) -> bool:
    """``issubclass``, for classes of the other side as well: those are derived from libraries' classes there alone."""
    if issubclass(cls, kinds):
        return True
    wanted = [[kind.__module__, kind.__qualname__] for kind in (kinds if isinstance(kinds, tuple) else (kinds,))]
    return isinstance(cls, RemoteType) and any(
        name in wanted for c in cls.__mro__ for name in vars(c).get("_renio_foreign", ())
    )


def _kin(cls: type, module: str, name: str) -> type:
    """A class of the same name that is derived from a library's, or that class itself. ``cls``, where nobody has loaded it."""
    kin = getattr(sys.modules.get(module), name, None) if module.split(".")[0] in _MODULES_OF_KIN else None
    if not isinstance(kin, type) or any(base.__name__ in _CROSS_AS_DATA for base in kin.__mro__):
        return cls
    try:
        return types.new_class(cls.__name__, (kin,))
    except TypeError:  # it is final
        return kin


def _dataclass_fields(cls: type) -> Any:
    names = vars(cls).get("_renio_fields")
    if not names:
        raise AttributeError(_FIELDS)
    from dataclasses import make_dataclass  # slow to import: whoever asks has it

    return make_dataclass("Fields", list(map(str, names))).__dataclass_fields__  # type: ignore[attr-defined]


def _passed_on(method: str) -> Callable[..., Any]:
    def special(self: Any, *args: Any) -> Any:
        return peer_of(self).use(self, method, args)

    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        return peer_of(self).call(self, args, kwargs)

    def following(self: Any) -> Any:
        if (value := special(self)) is END:
            raise StopIteration
        return value

    async def following_later(self: Any) -> Any:
        if (value := await special(self)) is END:
            raise StopAsyncIteration
        return value

    def awaited(self: Any) -> Any:
        return peer_of(self).awaited(self).__await__()

    others = {"__call__": called, "__next__": following, "__anext__": following_later, "__await__": awaited}
    return others.get(method, special)
