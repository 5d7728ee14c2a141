"""What a task can be asked about a row. A worker process answers for slow tasks, the caller's own process for fast ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from renio_pipeline.tasks import Task
from renio_pipeline.tasks.mixed import task_and_row
from renio_pipeline.types import Row

MOST_CHARACTERS = 300  # of a fault that is shown


def grade(task: Task, row: Row, text: str) -> dict[str, Any]:
    """The verdict on a response's text, its score where the task gives scores, and its final answer."""
    own, row = task_and_row(task, row)
    graded = getattr(own, "graded", None)
    verdict, score = graded(row, text) if graded else (own.verify(row, text), None)
    return {"verdict": verdict, "score": score, "answer": own.final_answer(text)}


def fault(task: Task, row: Row, text: str) -> str | None:
    """Why the row's own answer cannot be used, or None."""
    found = task.fault(row)
    return None if found is None else found[:MOST_CHARACTERS]


def ungraded(task: Task, row: Row, text: str) -> str | None:
    """As ``fault``, and a row on whose responses the task has no verdict is faulty too."""
    found = fault(task, row, text)
    if found is None and task.verify(row, text) is None:
        return f"no answer that task {task_and_row(task, row)[0].name} can verify"
    return found


def verdict(task: Task, row: Row, text: str) -> str | None:
    """The verdict alone."""
    return task.verify(row, text)


QUESTIONS: dict[str, Callable[[Task, Row, str], Any]] = {
    function.__name__: function for function in (grade, fault, ungraded, verdict)
}
