"""How objects cross that are no data: as references, which the other side sees as remote objects (see ``remote``)."""

from __future__ import annotations

import types
from enum import Enum
from typing import Any

from renio_pipeline.sandbox.exchange import descriptions, errors, flows, guard, names, remote, remote_types
from renio_pipeline.sandbox.exchange.containers import Containers
from renio_pipeline.sandbox.exchange.wire import Foreign

_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)


class References(Containers):
    """The objects that this side has handed out, and those that it has been handed."""

    def __init__(self) -> None:
        super().__init__()
        self._own: list[Any] = []  # by reference: what this side has handed out
        self._references: dict[int, int] = {}  # id of such an object: its reference
        self._remote: dict[int, Any] = {}  # by the other side's reference
        self._stand_ins: dict[int, int] = {}  # id of a local object that cannot hold its reference itself: the reference
        self._told: dict[int, None] = {}  # references of which the other side knows what they are

    def ask(self, verb: str, *arguments: Any) -> Any:
        """Send a request to the other side. Returns its answer, or raises what it raised."""
        raise NotImplementedError

    def believed(self, error: type[BaseException]) -> type[BaseException]:
        """The class that this side sees for an exception class of the other."""
        return error

    def attempt(self, value: Any) -> list[Any]:
        """[the encoded value], or [] where it cannot cross."""
        before = self.position()
        try:
            return [self.pack(value)]
        except (Foreign, RecursionError):
            self.take_back(*before)
            return []

    def position(self) -> tuple[int, int]:
        """What ``take_back`` returns to."""
        return self._given, len(self._told)

    def take_back(self, given: int, told: int = 0) -> None:
        """Forget what has been encoded since a position, and was not sent."""
        super().take_back(given)
        while len(self._told) > told:
            self._told.popitem()

    def compound(self, value: Any) -> Any:
        own = id(value) in self._references or id(value) in self._stand_ins or remote.held(value) is not None
        return self.foreign(value) if own or self._is_of_a_known_class(value) else super().compound(value)

    def _is_of_a_known_class(self, value: Any) -> bool:
        """Whether it is an object, though perhaps of a class that is derived from list or int: the other side has the class."""
        cls = type(value)
        if isinstance(value, Enum) and not isinstance(value, int | float | str):
            return True
        return cls.__module__ in ("program", "__main__") and id(cls) in self._references

    def foreign(self, value: Any) -> Any:
        if value is remote.END:
            return {"end": None}
        if (held := remote.held(value)) is not None:
            return {"yours": held[1]}
        if id(value) in self._stand_ins:
            return {"yours": self._stand_ins[id(value)]}
        if isinstance(value, guard.RemoteError):
            return {"refused": str(value)}
        if id(value) not in self._references and (named := self.named(value)) is not None:
            return {"named": named}
        return {"mine": self._handed_out(value)}

    def named(self, value: Any) -> list[str] | None:
        """The name by which the other side finds the value, if it does."""
        return names.name_of(value)

    def _handed_out(self, value: Any) -> list[Any]:
        """[reference, kind, what must be known of it]."""
        self.allow(value)
        reference = self._reference(value)
        if reference in self._told:
            return [reference]
        self._told[reference] = None
        if isinstance(value, BaseException):
            return [reference, "error", errors.packed(value, self)]
        if isinstance(value, type):
            return [reference, "class", descriptions.of_class(value, self)]
        if (flow := flows.kind_of(value)) is not None:
            return [reference, flow, None]
        if isinstance(value, _FUNCTIONS):
            return [reference, "function", descriptions.of_function(value)]
        return [reference, "object", self._class_of(type(value))]

    def allow(self, value: Any) -> None:
        """Raises Foreign: this side does not hand such a value out."""
        if isinstance(value, types.ModuleType):
            raise Foreign("a module does not cross")

    def _class_of(self, cls: type) -> Any:
        """The class of an object that is handed out, even if it is one that would not be handed out itself."""
        reference = self._reference(cls)
        if reference in self._told:
            return {"mine": [reference]}
        self._told[reference] = None
        return {"mine": [reference, "class", descriptions.of_class(cls, self)]}

    def _reference(self, value: Any) -> int:
        known = self._references.get(id(value))
        if known is None:
            known = self._references[id(value)] = len(self._own)
            self._own.append(value)  # for good, so that no other object ever has its id
        return known

    def made(self, kind: str, inner: Any) -> Any:
        if kind == "end":
            return remote.END
        if kind == "yours":
            return self._own[inner]
        if kind == "named":
            return self.found(*inner)
        if kind == "refused":
            return guard.RemoteError(str(inner))
        if kind != "mine":
            return super().made(kind, inner)
        reference = inner[0]
        return self._remote[reference] if reference in self._remote else self._made(*inner)

    def found(self, module: str, path: str) -> Any:
        """What the other side calls by a name."""
        return names.found(module, path)

    def stands_for(self, local: Any, reference: int) -> Any:
        """Let a local object that cannot hold its reference stand for the other side's. Returns it."""
        self._remote[reference] = local
        self._stand_ins[id(local)] = reference
        return local

    def _made(self, reference: int, kind: str, facts: Any) -> Any:
        if kind == "error":
            return errors.made(reference, facts, self)
        if kind == "function":
            return self.function(reference, facts)
        if kind == "class":
            made: Any = descriptions.made_class(facts, self)
        elif kind == "object":
            cls = self.unpack(facts)
            if not isinstance(cls, remote_types.RemoteType):
                raise ValueError("an object of no class")
            made = object.__new__(cls)  # type: ignore[arg-type]
        else:
            stub = remote.hold(object.__new__(remote.RemoteObject), self, reference)
            return self.stands_for(flows.made(kind, stub, self), reference)
        self._remote[reference] = remote.hold(made, self, reference)
        return made

    def function(self, reference: int, facts: dict[str, Any]) -> Any:
        """What stands for a function of the other side here."""
        made = self._remote[reference] = remote.hold(remote.remote_function(facts), self, reference)
        return made
