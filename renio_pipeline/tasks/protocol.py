"""The interface of a task."""

from __future__ import annotations

from typing import Literal, Protocol

from renio_pipeline.config.mixture import Recipe
from renio_pipeline.types import Row, Verdict

Split = Literal["train", "held_out"]

TRANSITION = "Now that you have understood the reference solution, solve the problem yourself, step by step."


class Task(Protocol):
    """What a task provides. The two splits never share a problem."""

    name: str
    recipe: Recipe  # arguments of ``make_task``: another process makes the same task
    slow: bool  # grading takes more than a millisecond or may hang, so it runs in worker processes with a deadline

    def rows(self, split: Split, count: int) -> list[Row]:
        """The first ``count`` problems of a split, the same in every call.

        Raises:
            ConfigError: the task generates no problems; they are read from ``data.path``.
        """
        ...

    def messages(self, row: Row) -> list[dict[str, str]]:
        """The chat messages that ask the problem."""
        ...

    def privileged_messages(self, row: Row) -> list[dict[str, str]]:
        """The chat messages for a teacher that sees the row's reference solution. Only called for rows that have one."""
        ...

    def verify(self, row: Row, text: str) -> Verdict | None:
        """The verdict on a response's text; None if the task (or the row) has no known answer."""
        ...

    def final_answer(self, text: str) -> str | None:
        """The final answer of a response, for majority votes; None if the response is unfinished.

        Equal answers should be equal text, as far as the task can tell.
        """
        ...

    def fault(self, row: Row) -> str | None:
        """Why the row's own answer cannot be used for grading; None if it can, or if the row has no answer."""
        ...


def shown_solution(messages: list[dict[str, str]], row: Row) -> list[dict[str, str]]:
    """The messages with the row's reference solution appended to the last one."""
    *before, last = messages
    content = f"{last['content']}\n\nA reference solution:\n{row.solution}\n\n{TRANSITION}"
    return [*before, {**last, "content": content}]
