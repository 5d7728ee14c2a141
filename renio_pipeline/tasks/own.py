"""The user's own task: one Python file, named in the configuration as ``task: path.py:Class``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from renio_pipeline.config import ConfigError
from renio_pipeline.config.own.own_file import OwnFile, traceback_of
from renio_pipeline.tasks.options import checked
from renio_pipeline.tasks.plain import Plain
from renio_pipeline.tasks.protocol import Split, shown_solution
from renio_pipeline.types import Row, Verdict

REQUIRED = ("messages", "verify")
T = TypeVar("T")


class TaskError(ConfigError):
    """The user's task raised an exception, or returned a wrong type. The text has the traceback and the row."""


class OwnTask(Plain):
    """Adapts the user's object to the protocol. Only ``messages`` and ``verify`` are required; ``plain`` supplies the rest.

    Responses are graded in worker processes unless the object sets ``slow = False``: a user's verifier must not stall a run.
    """

    def __init__(self, task: Any, file: str) -> None:
        self._task, self._file = task, file
        self.name = str(getattr(task, "name", type(task).__name__))
        self.slow = bool(getattr(task, "slow", True))

    def rows(self, split: Split, count: int) -> list[Row]:
        made = self._call("rows", super().rows, split, count)
        if not isinstance(made, list) or not all(isinstance(row, Row) for row in made):
            raise TaskError(f"task: {self._file}: rows must return a list of renio_pipeline.types.Row, not {_kind(made)}")
        return made

    def messages(self, row: Row) -> list[dict[str, str]]:
        return self._messages("messages", super().messages, row)

    def privileged_messages(self, row: Row) -> list[dict[str, str]]:
        return self._messages("privileged_messages", lambda row: shown_solution(self.messages(row), row), row)

    def verify(self, row: Row, text: str) -> Verdict | None:
        return self.graded(row, text)[0]

    def graded(self, row: Row, text: str) -> tuple[Verdict | None, float | None]:
        """The verdict, and the score if ``verify`` returns one: of a score of 1 the verdict is correct, of any other not."""
        given: Any = self._call("verify", super().verify, row, text)
        if _is_score(given):
            return ("correct" if given == 1 else "incorrect"), float(given)
        verdict: Verdict | None = given
        if verdict is not None and not (isinstance(verdict, str) and verdict in ("correct", "incorrect", "unfinished")):
            given = repr(verdict)[:500]
            raise TaskError(
                f"task: {self._file}: verify must return 'correct', 'incorrect', 'unfinished', a score from 0 to 1, or None, "
                f"not {given}, for {_shown(row)}{_instead_of(verdict)}"
            )
        return verdict, None

    def final_answer(self, text: str) -> str | None:
        return self._text("final_answer", super().final_answer, text)

    def fault(self, row: Row) -> str | None:
        return self._text("fault", lambda row: None, row)  # what ``verify`` does with an answer is not known here

    def error_kind(self, row: Row, text: str) -> str | None:
        return self._text("error_kind", lambda row, text: None, row, text)

    def _text(self, method: str, default: Callable[..., str | None], *given: Row | str) -> str | None:
        made: Any = self._call(method, default, *given)
        if made is not None and not isinstance(made, str):
            shown = _shown(given[0]) if isinstance(given[0], Row) else repr(given[0])[:500]
            raise TaskError(f"task: {self._file}: {method} must return text or None, not {repr(made)[:500]}, for {shown}")
        return made

    def _messages(self, method: str, default: Callable[..., T], row: Row) -> T:
        made: Any = self._call(method, default, row)
        good = isinstance(made, list) and made and all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in made)
        if not good:
            raise TaskError(
                f"task: {self._file}: {method} must return a list of {{'role': ..., 'content': ...}}, "
                f"not {made!r}, for {_shown(row)}"
            )
        return made

    def _call(self, method: str, default: Callable[..., T], *arguments: Any) -> T:
        function: Callable[..., T] = getattr(self._task, method, default)
        try:
            return function(*arguments)
        except ConfigError:
            raise
        except Exception as error:
            given = ", ".join(_shown(a) if isinstance(a, Row) else repr(a)[:500] for a in arguments)
            raise TaskError(f"task: {self._file}: {method} raised for {given}\n{traceback_of(error, __file__)}") from error


def own_task(file: OwnFile, options: Mapping[str, Any]) -> OwnTask:
    """Load the class of a user's file, and construct its task.

    Raises:
        ConfigError: there is no such class, the file or the constructor raises (with its traceback), a method is missing, or
            the constructor has no such option.
    """
    cls = file.load("task")
    if missing := [method for method in REQUIRED if not callable(getattr(cls, method, None))]:
        raise ConfigError(f"task: {file.cls} in {file.path} has no method {missing[0]}; a task needs {' and '.join(REQUIRED)}")
    keywords = checked(cls, options, file.cls)
    try:
        return OwnTask(cls(**keywords), file.path)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"task: {file.path}:{file.cls} cannot be constructed:\n{traceback_of(error, __file__)}") from error


def _shown(row: Row) -> str:
    line = f", line {row.line} of its file" if row.line else ""
    return f"row {row.id!r}{line} (problem {row.problem[:200]!r}, answer {repr(row.answer)[:200]})"


def _is_score(verdict: Any) -> bool:
    """Whether it is a number from 0 to 1. A truth value is none: what it means is for the verifier to say."""
    number = isinstance(verdict, int | float | np.floating | np.integer) and not isinstance(verdict, bool)
    return number and 0 <= verdict <= 1


def _instead_of(verdict: Any) -> str:
    """What to return instead of a truth value or of another number."""
    if isinstance(verdict, bool) or type(verdict).__name__ in ("bool", "bool_"):
        return "; of a truth value, return 'correct' if it is right, else 'incorrect'"
    if isinstance(verdict, int | float | np.floating | np.integer):
        return "; divide a score by the largest one there is"
    near = verdict.strip().lower() if isinstance(verdict, str) else ""
    return f"; write {near!r}" if near in ("correct", "incorrect", "unfinished") else ""


def _kind(value: Any) -> str:
    return f"a list with {type(value[0]).__name__}" if isinstance(value, list) and value else type(value).__name__
