"""What the pipeline asks of a task."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from renio_pipeline.types import Row, Verdict

Split = Literal["train", "held_out"]

TRANSITION = "Now that you have understood the reference solution, solve the problem yourself, step by step."


class Task(Protocol):
    """What a task provides. Rows of the two splits never share a problem."""

    name: str
    recipe: tuple[str, dict[str, Any]]  # name and options that ``make_task`` made it of, and another process can make it of
    slow: bool  # grading takes more than a millisecond, or may hang: it is done in worker processes, with a deadline

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

    def final_answer(self, text: str) -> str | None:
        """What a response says last, for majority votes: equal answers are equal text where the task can tell.

        None: the response is not finished.
        """
        ...

    def fault(self, row: Row) -> str | None:
        """Why the row's own answer cannot be used to grade, or None. A row without an answer has no fault."""
        ...


def shown_solution(messages: list[dict[str, str]], row: Row) -> list[dict[str, str]]:
    """The messages with the row's reference solution at the end of the last one."""
    *before, last = messages
    content = f"{last['content']}\n\nA reference solution:\n{row.solution}\n\n{TRANSITION}"
    return [*before, {**last, "content": content}]
