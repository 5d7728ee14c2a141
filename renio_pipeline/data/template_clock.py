"""The time and the random numbers that a chat template reads: fixed for a run, so that a prompt is the same on every day.

Llama 3's template, among others, writes the date into the system message (``strftime_now``). A run keeps the time of its start
in its directory, and a resume goes on with it. What a template draws at random (Jinja's ``random`` filter and ``lipsum``) is
drawn from the row's id. Nothing else that a template can read changes from one rendering to the next.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

_CLOCK = "strftime_now"
_CHANCE = re.compile(r"\b(?:random|lipsum)\b")


def reads_clock(template: str) -> bool:
    """Whether prompts of a chat template may differ from day to day."""
    return _CLOCK in template


class TemplateClock:
    """A clock that stands."""

    def __init__(self, at: str | None = None) -> None:
        """``at``: ISO 8601, in local time; None: now. Raises ValueError."""
        self._at = datetime.now().replace(microsecond=0) if at is None else datetime.fromisoformat(at)

    @property
    def at(self) -> str:
        return self._at.isoformat()

    def options(self, template: str) -> dict[str, Any]:
        """What ``apply_chat_template`` is to hand to the template: a variable takes precedence over the global function."""
        return {_CLOCK: self._at.strftime} if reads_clock(template) else {}

    def note(self, template: str, model: str) -> str | None:
        """What the user should know; None where the template reads no clock."""
        if not reads_clock(template):
            return None
        return f"the chat template of {model!r} reads the time: for all prompts it is {self._at}, also after a resume"


@contextmanager
def fixed_chance(template: str, row_id: str) -> Iterator[None]:
    """Within the context, a template that draws at random draws for a row what it always draws."""
    if not _CHANCE.search(template):
        yield
        return
    before = random.getstate()
    random.seed(row_id)
    try:
        yield
    finally:
        random.setstate(before)
