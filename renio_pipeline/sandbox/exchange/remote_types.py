"""Classes of the other interpreter, as a program or its tests see them."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from renio_pipeline.sandbox.exchange.remote import END, FIELDS, SPECIAL, RemoteObject, held, peer_of

_MODULES_OF_KIN = (
    "abc", "builtins", "collections", "contextlib", "datetime", "enum", "io", "logging", "matplotlib", "networkx", "numbers",
    "numpy", "pandas", "queue", "re", "threading", "types",
)  # fmt: skip
_CROSS_AS_DATA = ("DataFrame", "Series", "Index", "ndarray", "generic")  # of these libraries: an object is none of them


class RemoteType(type):
    """The class of the local classes that stand for the other interpreter's."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return peer_of(cls).call(cls, args, kwargs)

    def __getattr__(cls, name: str) -> Any:
        if held(cls) is None or (name.startswith("__") and name.endswith("__") and name not in ("__members__", FIELDS)):
            raise AttributeError(name)
        return _dataclass_fields(cls) if name == FIELDS else peer_of(cls).ask("get", cls, name)

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
    listed = kinds if isinstance(kinds, tuple) else getattr(kinds, "__args__", (kinds,))  # of a union
    wanted = [[kind.__module__, kind.__qualname__] for kind in listed if isinstance(kind, type)]
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
        raise AttributeError(FIELDS)
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
