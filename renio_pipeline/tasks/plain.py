"""Problems from the user's own file, asked as they are written."""

from __future__ import annotations

from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.tasks.protocol import Split, shown_solution
from renio_pipeline.types import Row, Verdict


class Plain:
    """The problem is the user's message. A response is correct if its last line is the row's answer."""

    name = "plain"
    slow = False
    recipe: tuple[str, dict[str, Any]]

    def rows(self, split: Split, count: int) -> list[Row]:
        key = "data.path" if split == "train" else "data.held_out_path (or evaluate.problems=0)"
        raise ConfigError(f"task {self.name} generates no problems: set {key}")

    def messages(self, row: Row) -> list[dict[str, str]]:
        return [{"role": "user", "content": row.problem}]

    def privileged_messages(self, row: Row) -> list[dict[str, str]]:
        return shown_solution(self.messages(row), row)

    def verify(self, row: Row, text: str) -> Verdict | None:
        if row.answer is None:
            return None
        last = self.final_answer(text)
        if last is None:
            return "unfinished"
        return "correct" if last == row.answer.strip() else "incorrect"

    def final_answer(self, text: str) -> str | None:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else None

    def fault(self, row: Row) -> str | None:
        return None
