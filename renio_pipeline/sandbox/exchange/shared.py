"""What program and tests share although each has an interpreter of its own: random numbers, output, the recursion limit."""

from __future__ import annotations

import builtins
import io
import sys
from typing import Any

PRINT = builtins.print
_STREAMS = ("stdout", "stderr")


class State:
    """What both interpreters have the same of. Each message says what has changed of it: ``changes``, and ``take`` on arrival.

    Output goes from the program to its tests, which may capture it; the recursion limit goes the other way, and that they have
    patched ``print``.
    """

    def __init__(self, *, of_program: bool) -> None:
        self._of_program = of_program
        self._random: Any = None
        self._numpy: Any = None
        self._depth = sys.getrecursionlimit()
        self.print_is_patched = False  # by the tests, which then want the program's calls of it

    def changes(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self._of_program:
            found |= {name: text for name in _STREAMS if (text := _printed(getattr(sys, name)))}
        else:
            if sys.getrecursionlimit() > self._depth:
                found["depth"] = self._depth = sys.getrecursionlimit()
            if self.print_is_patched is (builtins.print is PRINT):
                found["print"] = self.print_is_patched = builtins.print is not PRINT
        return found | self._changed_random()

    def take(self, changes: dict[str, Any]) -> None:
        """Raises ValueError, TypeError or another exception for what ``changes`` cannot have said."""
        if self._of_program and "depth" in changes:
            sys.setrecursionlimit(changes["depth"])
        if self._of_program and "print" in changes:
            self.print_is_patched = changes["print"]
        for name in () if self._of_program else _STREAMS:
            if name in changes:
                getattr(sys, name).write(str.__str__(changes[name]))
        if "random" in changes:
            import random

            version, numbers, gauss = changes["random"]
            random.setstate((version, tuple(numbers), None if gauss is None else float.__float__(gauss)))
            self._random = random.getstate()
        if "numpy" in changes:
            import numpy

            numpy.random.set_state(changes["numpy"])
            self._numpy = changes["numpy"]

    def _changed_random(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        random, numpy = sys.modules.get("random"), sys.modules.get("numpy")
        if random is not None and (state := random.getstate()) != self._random:
            self._random = found["random"] = state
        if numpy is not None and hasattr(numpy, "random"):
            state = numpy.random.get_state(legacy=True)
            if self._numpy is None or not _same_state(state, self._numpy):
                self._numpy = found["numpy"] = state
        return found


def _same_state(state: Any, other: Any) -> bool:
    return all(bool((a == b).all()) if hasattr(a, "all") else a == b for a, b in zip(state, other, strict=True))


def _printed(stream: Any) -> str:
    """What has been printed since the last time, of a stream that ``capture`` has made."""
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
