"""The task of several sources: each row is asked and judged by the task of its own source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from renio_pipeline.config.mixture import Recipe
from renio_pipeline.tasks.protocol import Split, Task
from renio_pipeline.types import Row, Verdict


class MixedTask:
    """Hands each row to its source's task, under the id that the source gave it: see ``data.mixing.mixed_rows``."""

    recipe: Recipe

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        """``tasks``: by the name of the source."""
        self.tasks = dict(tasks)
        self.name = " + ".join(dict.fromkeys(task.name for task in self.tasks.values()))
        self.slow = any(task.slow for task in self.tasks.values())

    def of(self, row: Row) -> tuple[Task, Row]:
        """The task of a row, and the row as that task knows it."""
        assert row.source is not None, f"row {row.id!r} of a mixture belongs to no source"
        return self.tasks[row.source], replace(row, id=row.id.removeprefix(f"{row.source}/"))

    def rows(self, split: Split, count: int) -> list[Row]:
        raise NotImplementedError("each source makes its own rows: see renio_pipeline.data.problems")

    def messages(self, row: Row) -> list[dict[str, str]]:
        task, own = self.of(row)
        return task.messages(own)

    def privileged_messages(self, row: Row) -> list[dict[str, str]]:
        task, own = self.of(row)
        return task.privileged_messages(own)

    def instruction_for(self, row: Row) -> str | None:
        """What the placeholder {instruction} stands for."""
        task, own = self.of(row)
        found = getattr(task, "instruction_for", None)
        return found(own) if found else None

    def verify(self, row: Row, text: str) -> Verdict | None:
        task, own = self.of(row)
        return task.verify(own, text)

    def error_kind(self, row: Row, text: str) -> str | None:
        """The kind of an incorrect response, where its task tells kinds apart."""
        task, own = self.of(row)
        return error_kind(task, own, text)

    def final_answer(self, text: str) -> str | None:
        raise NotImplementedError("the final answer of a response depends on its row: see task_and_row")

    def fault(self, row: Row) -> str | None:
        task, own = self.of(row)
        return task.fault(own)


def error_kind(task: Task, row: Row, text: str) -> str | None:
    """The kind of an incorrect response, such as ``slipped``; None from a task that does not tell kinds apart.

    A task may have a method ``error_kind(row, text)``, which names it.
    """
    told = getattr(task, "error_kind", None)
    return told(row, text) if told else None


def task_and_row(task: Task, row: Row) -> tuple[Task, Row]:
    """The one task that asks and judges a row, and the row as it knows it: of a mixture the source's."""
    return task.of(row) if isinstance(task, MixedTask) else (task, row)
