"""Values among which an expected one is hidden, when a program is asked whether an object of its own equals it.

A program that wants to pass would say that its object equals whatever its tests expect. So it is asked about a row of values,
in which the expected one has a place that it cannot know: each differs from the next in one detail, and by as much.
"""

from __future__ import annotations

import _random  # without what ``random`` imports
from collections.abc import Callable
from typing import Any

_MOST = 16  # values in a row
_WINDOW = 64  # steps from the first that a row could have to the last
_ALPHABETS = ("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789")
Vary = Callable[[int], Any]  # what a value is some steps away; at 0, it is itself


class Decoys:
    """Draws rows. The same seed draws the same rows, so that a verdict can be repeated."""

    def __init__(self, seed: int) -> None:
        self._random = _random.Random(seed)

    def row(self, value: Any) -> tuple[list[Any], int]:
        """The values, and which of them is the given one. It is alone where no other is like it, such as for None."""
        found = self._variation(value) or self._variation(value, bools=True)
        if found is None:
            return [value], 0
        vary, window = found
        first = -self._below(window)
        others = [step for step in range(first, first + window) if step]
        while len(others) >= _MOST:
            others.pop(self._below(len(others)))
        values = [made for step in others if (made := vary(step)) != value]
        at = self._below(len(values) + 1)
        return [*values[:at], value, *values[at:]], at

    def _below(self, bound: int) -> int:
        return int(self._random.random() * bound)

    def _variation(self, value: Any, *, bools: bool = False) -> tuple[Vary, int] | None:
        """How to vary a value, and how many steps there are. ``bools``: whether to vary truth values, which have only two."""
        if isinstance(value, bool):
            return (lambda step: value is (step == 0), 2) if bools else None
        if isinstance(value, int | complex) or type(value).__name__ in ("Fraction", "Decimal"):
            return (lambda step: value + step), _WINDOW
        if isinstance(value, float):
            return None if value - value != 0 else _digits(value)
        if isinstance(value, str):
            return self._letter(value)
        if isinstance(value, bytes):
            return _within(self._letter(value.decode("latin-1")), lambda text: text.encode("latin-1"))
        if isinstance(value, list | tuple | set | frozenset):
            kind = next(kind for kind in (list, tuple, set, frozenset) if isinstance(value, kind))
            return self._item(list(value), kind, bools)
        if isinstance(value, dict):
            return _within(self._item(list(value.values()), list, bools), lambda items: dict(zip(value, items, strict=True)))
        return None

    def _letter(self, text: str) -> tuple[Vary, int] | None:
        places = [(at, letters) for at, letter in enumerate(text) for letters in _ALPHABETS if letter in letters]
        if not places:
            return None
        at, letters = places[self._below(len(places))]

        def vary(step: int) -> str:
            return text[:at] + letters[(letters.index(text[at]) + step) % len(letters)] + text[at + 1 :]

        return vary, len(letters)

    def _item(self, items: list[Any], kind: Callable[[list[Any]], Any], bools: bool) -> tuple[Vary, int] | None:
        """How to vary one of the items."""
        places = list(range(len(items)))
        while places:
            at = places.pop(self._below(len(places)))
            if (found := self._variation(items[at], bools=bools)) is not None:
                return _within(found, lambda item, at=at: kind([*items[:at], item, *items[at + 1 :]]))  # type: ignore[misc]
        return None


def _within(found: tuple[Vary, int] | None, whole: Callable[[Any], Any]) -> tuple[Vary, int] | None:
    """How to vary what contains what ``found`` varies."""
    return None if found is None else ((lambda step: whole(found[0](step))), found[1])


def _digits(value: float) -> tuple[Vary, int]:
    """Steps in the last digit that is written."""
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    number, power = int(whole + fraction), int(exponent or 0) - len(fraction)
    return (lambda step: float(f"{number + step}e{power}")), _WINDOW
