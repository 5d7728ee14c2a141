"""Problems from the user's own file, asked as they are written."""

from __future__ import annotations

from renio_pipeline.config import ConfigError
from renio_pipeline.config.mixture import Recipe
from renio_pipeline.tasks.protocol import Split, shown_solution
from renio_pipeline.types import Row, Verdict

_MOST_SHOWN = 80  # characters of an answer
_LAYOUTS = (  # what an answer has in it, and what to do
    ("\n####", "it is a solution in GSM8K's layout, whose answer stands after ####: set data.preset=gsm8k, or task=maths"),
    ("\\boxed{", "it is a solution in MATH's layout, whose answer stands in a box: set task=maths, or data.preset=math"),
    ("</answer>", "its answer stands between tags of <answer>: give data.fields.answer a field that has it alone"),
    ("</think>", "its answer stands behind a thinking section: give data.fields.answer a field that has it alone"),
    ("```", "it is a program: set task=code, with tests in the field data.fields.tests"),
)


class Plain:
    """The problem is the user's message. A response is correct if its last line is the row's answer."""

    name = "plain"
    slow = False
    recipe: Recipe

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
        """An answer that no last line can equal: one of several lines, or without any."""
        if row.answer is None or self.final_answer(row.answer) == row.answer.strip() != "":
            return None
        shown = repr(row.answer if len(row.answer) <= _MOST_SHOWN else row.answer[:_MOST_SHOWN] + "...")
        if not row.answer.strip():
            return f"answer {shown} is blank, and no last line of a response is"
        known = next((f"; {said}" for mark, said in _LAYOUTS if mark in row.answer), "")
        return f"answer {shown} has several lines, and a response is compared by its last one{known}"
