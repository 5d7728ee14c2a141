"""What a check is: a function of the settings that yields figures as it measures them, and raises if something is wrong."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from tests.gpu.settings import Settings

Outcome = Literal["passed", "failed", "not run"]


@dataclass(frozen=True)
class Figure:
    """A measured value, and the bounds that it must keep, if any."""

    name: str
    value: float
    unit: str = ""
    most: float | None = None
    least: float | None = None

    @property
    def broken(self) -> bool:
        """Not a number breaks every bound."""
        above = self.most is not None and not self.value <= self.most
        return above or (self.least is not None and not self.value >= self.least)

    @property
    def limit(self) -> str:
        bounds = [(self.most, "at most"), (self.least, "at least")]
        return ", ".join(f"{word} {bound:.4g}" for bound, word in bounds if bound is not None)

    def __str__(self) -> str:
        limit = f" ({self.limit})" if self.limit else ""
        return f"{self.name} {self.value:.4g}{' ' if self.unit else ''}{self.unit}{limit}"


class NotRun(Exception):
    """The check does not apply to this machine; the text says why."""


Figures = Iterator[Figure]


@dataclass(frozen=True, kw_only=True)
class Check:
    name: str  # its first letter is the group's: groups run in the order of the alphabet
    function: str  # "module:function" below tests.gpu.checks; it is imported in the check's own process alone
    seconds: float  # limit of that process
    needs: tuple[str, ...] = ()  # packages besides torch and transformers
    gpu: bool = False  # cannot run elsewhere

    def run(self, settings: Settings) -> Figures:
        """Raises NotRun, and whatever the function raises."""
        if self.gpu and settings.device != "cuda":
            raise NotRun("needs a GPU")
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            raise NotRun(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed")
        module, _, name = self.function.partition(":")
        function: Callable[[Settings], Figures] = getattr(importlib.import_module(f"tests.gpu.checks.{module}"), name)
        return function(settings)
