"""Problems of one's own from a file, asked as they stand."""

from __future__ import annotations

from renio_pipeline.config import ConfigError
from renio_pipeline.types import Row, Verdict

TRANSITION = "Now that you have understood the reference solution, solve the problem yourself, step by step."


class Plain:
    """The problem is the user's message. A response is correct if its last line is the row's answer."""

    name = "plain"

    def rows(self, split: str, count: int) -> list[Row]:
        key = "data.path" if split == "train" else "data.held_out_path (or evaluate.problems=0)"
        raise ConfigError(f"task plain makes no problems of its own: set {key}")

    def messages(self, row: Row) -> list[dict[str, str]]:
        return [{"role": "user", "content": row.problem}]

    def privileged_messages(self, row: Row) -> list[dict[str, str]]:
        content = f"{row.problem}\n\nA reference solution:\n{row.solution}\n\n{TRANSITION}"
        return [{"role": "user", "content": content}]

    def verify(self, row: Row, text: str) -> Verdict | None:
        if row.answer is None:
            return None
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            return "unfinished"
        return "correct" if lines[-1] == row.answer.strip() else "incorrect"
