"""Containers that program and tests share: lists, dictionaries, sets, deques, byte arrays and NumPy's arrays.

Each side has a copy. A container gets a number when it first crosses, so that it stays one object on either side however often
it crosses, and every message begins with the contents of those that have changed since the last one. A container that one side
no longer refers to is forgotten on both.
"""

from __future__ import annotations

import operator
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

from renio_pipeline.sandbox.exchange.wire import MAKERS, Foreign, Wire

_MOST = 4096  # containers are shared; those that cross beyond them are copies
_SHARED = (list, dict, Counter, OrderedDict, defaultdict, set, deque, bytearray)
_EMPTY = {kind.__name__: kind for kind in (list, dict, Counter, OrderedDict, set)}


class _Entry:
    __slots__ = ("seen", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.seen: Any = None  # its contents when the other side last heard of them, see ``_contents``


_LONELY = _Entry([])
_UNUSED = sys.getrefcount(_LONELY.value)  # of a value that nothing but its entry refers to


class Containers(Wire):
    """A wire that shares containers. A number is negative on the side that has not given it."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._numbers: dict[int, int] = {}  # by the id of a container that has an entry
        self._given = 0
        self._copies = False  # whether containers cross as copies at the moment

    def by_value(self, value: Any) -> Any:
        """Encode a value whose containers arrive as copies."""
        before, self._copies = self._copies, True
        try:
            return self.pack(value)
        finally:
            self._copies = before

    def compound(self, value: Any) -> Any:
        if self._copies or not _is_shared(value):
            return super().compound(value)
        if (number := self._numbers.get(id(value))) is not None:
            return {"shared": number}
        if len(self._entries) >= _MOST or (container := self._container(value)) is None:
            return super().compound(value)
        return container

    def _container(self, value: Any) -> Any:
        """Encode a container that crosses for the first time. It has its number first: it may contain itself."""
        self._given += 1
        entry = self._enter(self._given, value)
        if (found := self.container(value)) is None:
            self._forget(self._given)
            return None
        entry.seen = _contents(value)
        return {"new": [self._numbers[id(value)], *found]}

    def made(self, kind: str, inner: Any) -> Any:
        if kind == "shared":
            return self._entries[-inner].value
        if kind != "new":
            return super().made(kind, inner)
        number, kind, parts = inner
        if kind in _EMPTY or kind in ("defaultdict", "deque"):
            value: Any = _EMPTY[kind]() if kind in _EMPTY else deque(maxlen=parts[1]) if kind == "deque" else defaultdict()
            entry = self._enter(-number, value)
            _fill(value, self._decoded(kind, parts))
        else:
            entry = self._enter(-number, self._decoded(kind, parts))
        entry.seen = _contents(entry.value)
        return entry.value

    def _decoded(self, kind: str, parts: Any) -> Any:
        return self.unpack(parts) if kind == "list" else MAKERS[kind](self.unpack(parts))

    def changes(self) -> list[Any]:
        """What the other side must hear before the next message: [number, kind, contents], or [number] of one to forget."""
        found: list[Any] = []
        for number, entry in list(self._entries.items()):
            if not _has_changed(entry):
                if sys.getrefcount(entry.value) <= _UNUSED:
                    found.append(self._forgotten(number))
                continue
            before = self.position()
            try:
                found.append([number, *(self.container(entry.value) or ())])
                entry.seen = _contents(entry.value)
            except (Foreign, RecursionError):  # what it has now cannot cross: from here on, it is this side's alone
                self.take_back(*before)
                found.append(self._forgotten(number))
        return found

    def position(self) -> tuple[int, ...]:
        """What ``take_back`` returns to."""
        return (self._given,)

    def take_back(self, given: int) -> None:
        """Forget the containers that were given numbers since a position, in a message that was not sent."""
        for number in range(given + 1, self._given + 1):
            self._forget(number)

    def _forgotten(self, number: int) -> list[int]:
        self._forget(number)
        return [number]

    def take(self, changes: list[Any]) -> None:
        """Make the changes of the other side. Raises as ``loads`` does for what it cannot have said."""
        for number, *change in changes:
            if not change:
                self._forget(-number)
                continue
            entry = self._entries[-number]
            _fill(entry.value, self._decoded(*change))
            entry.seen = _contents(entry.value)

    def _enter(self, number: int, value: Any) -> _Entry:
        self._numbers[id(value)] = number
        entry = self._entries[number] = _Entry(value)
        return entry

    def _forget(self, number: int) -> None:
        if (entry := self._entries.pop(number, None)) is not None:
            del self._numbers[id(entry.value)]


def _is_shared(value: Any) -> bool:
    return type(value) in _SHARED or (type(value).__name__ == "ndarray" and type(value).__module__ == "numpy")


def _contents(value: Any) -> Any:
    """The items of a container, to be compared by identity, or its bytes."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | set | deque):
        return list(value)
    if isinstance(value, bytearray):
        return bytes(value)
    return value.ravel().tolist() if value.dtype.hasobject else value.tobytes()


def _has_changed(entry: _Entry) -> bool:
    now = _contents(entry.value)
    if isinstance(now, bytes):
        return bool(now != entry.seen)
    return len(now) != len(entry.seen) or not all(map(operator.is_, now, entry.seen))


def _fill(value: Any, new: Any) -> None:
    """Give a container the contents of a new one. Raises TypeError: they are not of one kind."""
    if type(value) is not type(new):
        raise TypeError(f"a {type(value).__name__} cannot become a {type(new).__name__}")
    if isinstance(value, dict):
        if value.keys() != new.keys() or list(value) != list(new):
            value.clear()
        value.update(new) if type(value) is not Counter else dict.update(value, new)
        if isinstance(value, defaultdict):
            value.default_factory = new.default_factory
    elif isinstance(value, set):
        value.clear()
        value.update(new)
    elif isinstance(value, deque):
        value.clear()
        value.extend(new)
    elif isinstance(value, list | bytearray):
        value[:] = new
    else:
        value[...] = new
