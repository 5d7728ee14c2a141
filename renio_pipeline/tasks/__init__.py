"""Tasks: what a problem is, how it is asked, and how an answer is judged. One file each, one registry."""

from __future__ import annotations

from typing import Literal, Protocol

from renio_pipeline.config import ConfigError
from renio_pipeline.types import Row, Verdict

Split = Literal["train", "held_out"]


class Task(Protocol):
    """What a task provides. Rows of the two splits never share a problem."""

    name: str

    def rows(self, split: Split, count: int) -> list[Row]:
        """The first ``count`` problems of a split, the same at every call.

        Raises:
            ConfigError: the task makes no problems of its own; they come from ``data.path``.
        """
        ...

    def messages(self, row: Row) -> list[dict[str, str]]:
        """The chat messages that ask the problem."""
        ...

    def privileged_messages(self, row: Row) -> list[dict[str, str]]:
        """The same for a teacher that is shown the row's reference solution. Only called for rows that have one."""
        ...

    def verify(self, row: Row, text: str) -> Verdict | None:
        """The verdict on a response's text, or None where the task (or the row) has no known answer."""
        ...


def make_task(name: str) -> Task:
    """Raises ConfigError for a name that is not registered."""
    from renio_pipeline.tasks.arithmetic import Arithmetic
    from renio_pipeline.tasks.plain import Plain

    registry: dict[str, type[Task]] = {"arithmetic": Arithmetic, "plain": Plain}
    if name not in registry:
        raise ConfigError(f"task: {name!r} is not known; allowed: {', '.join(registry)}")
    return registry[name]()
