"""The task: how a problem is asked, and the verdict on a response."""

from __future__ import annotations

import re
from functools import lru_cache

from renio_pipeline.tasks.maths.notation.scanning import balanced
from renio_pipeline.tasks.maths.said import last_box, said_last
from renio_pipeline.tasks.plain import Plain
from renio_pipeline.tasks.protocol import shown_solution
from renio_pipeline.types import Row, Verdict

INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."

_DIGIT = re.compile("[0-9]")
_BLANK = re.compile(r"(?<!\d)\s+|\s+(?!\d)")  # but for those between digits
_MARKED = re.compile(r"(?:^|\n)\s*####\s*(.+)\s*$")


class Maths(Plain):
    """Mathematics problems, judged by their final answer alone.

    Computations are bounded by the size of numbers, but integrals and the like go to sympy, so callers need a deadline.
    """

    name = "maths"
    slow = True

    def __init__(self, instruction: str | None = INSTRUCTION) -> None:
        """
        Args:
            instruction: text that follows the problem; None for none. Without a box, what a response states last is graded.
        """
        self.instruction = instruction

    def messages(self, row: Row) -> list[dict[str, str]]:
        content = f"{row.problem}\n\n{self.instruction}" if self.instruction else row.problem
        return [{"role": "user", "content": content}]

    def instruction_for(self, row: Row) -> str | None:
        return self.instruction

    def privileged_messages(self, row: Row) -> list[dict[str, str]]:
        return shown_solution(self.messages(row), row)

    def verify(self, row: Row, text: str) -> Verdict | None:
        """Compare with the row's answer: exactly, or to the digits that a decimal shows if they are at least six."""
        if row.answer is None:
            return None
        said = said_last(text)
        if said is None:
            return "unfinished"
        return "correct" if _equal(_gold(row.answer), said) else "incorrect"

    def final_answer(self, text: str) -> str | None:
        r"""What a response says last, written in one way: 0.5, 1/2, \frac12 and x = 0.5 are one vote."""
        said = said_last(text)
        if said is None:
            return None
        # Imported late: the driver asks only for messages, and sympy takes a second.
        from renio_pipeline.tasks.maths.notation.typography import normal
        from renio_pipeline.tasks.maths.reading.structure import read
        from renio_pipeline.tasks.maths.votes import vote

        return vote(read(normal(said))) or None

    def fault(self, row: Row) -> str | None:
        if row.answer is None or _is_sound(_DIGIT.sub("2", row.answer)):
            return None
        shown = row.answer if len(row.answer) <= 200 else row.answer[:200] + "..."
        return f"answer {shown!r} cannot be parsed by math-verify"


def _gold(answer: str) -> str:
    """The row's answer out of a box, or a layout that has it behind ####."""
    box = last_box(answer)
    marked = _MARKED.search(answer)
    return box if box is not None else marked[1] if marked else answer


def _equal(gold: str, said: str) -> bool:
    from renio_pipeline.tasks.maths.comparing.equality import equal
    from renio_pipeline.tasks.maths.notation.digits import decimal_comma
    from renio_pipeline.tasks.maths.notation.typography import normal
    from renio_pipeline.tasks.maths.reading.structure import read
    from renio_pipeline.tasks.maths.reading.units import glued

    wanted, given = normal(gold), normal(said)
    if not wanted or not given:
        return False
    if _BLANK.sub("", wanted) == _BLANK.sub("", given):
        return True
    others = [glued(given), decimal_comma(wanted, given)]
    return any(equal(read(wanted), read(other)) for other in [given, *others] if other is not None)


@lru_cache(65536)
def _is_sound(form: str) -> bool:
    """Whether an answer of this form can be compared.

    Args:
        form: the answer with each digit replaced by 2. Which digits they are does not matter, so the few thousand forms of a
            hundred thousand answers are read once each.
    """
    from renio_pipeline.tasks.maths.answers import texts
    from renio_pipeline.tasks.maths.notation.typography import normal
    from renio_pipeline.tasks.maths.reading.structure import read

    wanted = normal(_gold(form))
    return bool(wanted) and balanced(_gold(form)) and all(text.sound for text in texts(read(wanted)))
