"""What program and tests share although each has an interpreter of its own: arguments changed in place, random numbers,
output."""

from __future__ import annotations

import io
import sys
from typing import Any

_STREAMS = ("stdout", "stderr")


class Watched:
    """The arguments of a call: which of them has the callee changed in place?"""

    def __init__(self, wire: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
        self._wire = wire
        self._values = {key: value for key, value in _keyed(args, kwargs) if _mutable(value)}
        self._before = {key: wire.pack(value) for key, value in self._values.items()}

    def changed(self) -> list[tuple[int | str, Any]]:
        return [(key, value) for key, value in self._values.items() if self._wire.pack(value) != self._before[key]]


def _keyed(args: list[Any], kwargs: dict[str, Any]) -> list[tuple[int | str, Any]]:
    return [*enumerate(args), *kwargs.items()]


def _mutable(value: Any) -> bool:
    return (
        isinstance(value, list | dict | set | bytearray)
        or hasattr(value, "__array_interface__")
        or type(value).__name__ == "deque"
    )


def update(old: Any, new: Any) -> None:
    """Give a container the contents of another of its kind, keeping the containers in it that have only changed inside."""
    if isinstance(old, list) and isinstance(new, list):
        old[:] = [_kept(o, n) for o, n in zip(old, new, strict=False)] + new[len(old) :]
    elif isinstance(old, dict) and isinstance(new, dict):
        contents = {key: _kept(old[key], value) if key in old else value for key, value in new.items()}
        old.clear()
        old.update(contents)
    elif isinstance(old, set) and isinstance(new, set):
        old.clear()
        old.update(new)
    elif isinstance(old, bytearray) and isinstance(new, bytearray):
        old[:] = new
    elif type(old) is type(new) and hasattr(old, "extend"):  # a deque
        old.clear()
        old.extend(new)
    elif type(old) is type(new) and getattr(old, "shape", None) == getattr(new, "shape", ()):  # an array
        old[...] = new


def _kept(old: Any, new: Any) -> Any:
    if type(old) is type(new) and isinstance(old, list | dict | set | bytearray):
        update(old, new)
        return old
    return new


class State:
    """What both interpreters have the same of, sent along with each message when it has changed."""

    def __init__(self) -> None:
        self._random: Any = None
        self._numpy: Any = None
        self._depth = sys.getrecursionlimit()

    def changes(self, *, sends_output: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if sends_output:
            found |= {name: text for name in _STREAMS if (text := _printed(getattr(sys, name)))}
        elif sys.getrecursionlimit() > self._depth:
            found["depth"] = self._depth = sys.getrecursionlimit()
        return found | self._changed_random()

    def take(self, changes: dict[str, Any]) -> None:
        for name in _STREAMS:
            if name in changes:
                getattr(sys, name).write(str(changes[name]))
        if "depth" in changes:
            sys.setrecursionlimit(int(changes["depth"]))
        if "random" in changes:
            import random

            version, numbers, gauss = changes["random"]
            random.setstate((version, tuple(numbers), gauss))
            self._random = random.getstate()
        if "numpy" in changes:
            import numpy

            numpy.random.set_state(tuple(changes["numpy"]))
            self._numpy = changes["numpy"]

    def _changed_random(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        random, numpy = sys.modules.get("random"), sys.modules.get("numpy")
        if random is not None and (state := random.getstate()) != self._random:
            self._random = state
            found["random"] = [state[0], list(state[1]), state[2]]
        if numpy is not None and hasattr(numpy, "random"):
            kind, keys, *rest = numpy.random.get_state(legacy=True)
            state = (str(kind), keys, *rest)
            if self._numpy is None or not _same_state(state, self._numpy):
                self._numpy = state
                found["numpy"] = list(state)
        return found


def _same_state(state: Any, other: Any) -> bool:
    return all(bool((a == b).all()) if hasattr(a, "all") else a == b for a, b in zip(state, other, strict=True))


def _printed(stream: Any) -> str:
    """What has been printed since the last time, of a stream that ``captured`` has made."""
    buffer = getattr(stream, "buffer", None)
    if not isinstance(buffer, io.BytesIO):
        return ""
    stream.flush()
    text = buffer.getvalue().decode(errors="replace")
    buffer.seek(0)
    buffer.truncate()
    return text


def capture() -> None:
    """From now on, keep what this interpreter prints until it is sent to the other."""
    for name in _STREAMS:
        setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="replace", write_through=True))
