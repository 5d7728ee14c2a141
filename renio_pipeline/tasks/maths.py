"""Mathematics: the final answer is in a box, and math-verify decides whether it equals the row's answer."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

from renio_pipeline.tasks.plain import Plain
from renio_pipeline.tasks.protocol import shown_solution
from renio_pipeline.types import Row, Verdict

INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_DIGIT = re.compile("[0-9]")


class Maths(Plain):
    """Mathematics problems. Parsing and comparing may never end (``9^{9^{9^9}}``), so callers need a deadline."""

    name = "maths"
    slow = True

    def __init__(self, instruction: str | None = INSTRUCTION) -> None:
        """
        Args:
            instruction: text that follows the problem; None for none. Without a box, the last expression that math-verify
                finds is graded.
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
        """Compare with the row's answer by math-verify: numbers to six digits; sets, intervals and matrices by value."""
        if row.answer is None:
            return None
        given = _said_last(text)
        if not given:
            return "unfinished"
        from math_verify import verify

        return "correct" if verify(_gold(row.answer), given, timeout_seconds=None) else "incorrect"

    def final_answer(self, text: str) -> str | None:
        r"""The last ``\boxed{}``, or else the last expression that math-verify finds, in sympy's form: 0.5, 1/2 and \frac12
        are equal."""
        given = _said_last(text)
        if not given:
            return None
        expression, as_written = given[0], str(given[-1])
        if getattr(expression, "is_Float", False) and re.fullmatch(r"-?[0-9]*\.?[0-9]+", as_written):
            from sympy import Rational

            return str(Rational(as_written))
        return str(expression)

    def fault(self, row: Row) -> str | None:
        if row.answer is None or _parses(_DIGIT.sub("2", row.answer)):
            return None
        shown = row.answer if len(row.answer) <= 200 else row.answer[:200] + "..."
        return f"answer {shown!r} cannot be parsed by math-verify"


def last_box(text: str) -> str | None:
    r"""The contents of the last closed ``\boxed{...}``, or None."""
    for start in reversed([match.end() for match in _BOX.finditer(text)]):
        depth = 1
        for at in range(start, len(text)):
            depth += (text[at] == "{") - (text[at] == "}") if text[at - 1] != "\\" else 0
            if not depth:
                return text[start:at].strip()
    return None


@lru_cache(65536)
def _parses(form: str) -> bool:
    """Whether an answer of this form is an expression.

    Args:
        form: the answer with each digit replaced by 2. Which digits they are does not matter, so the few thousand forms of a
            hundred thousand answers are parsed once each.
    """
    found = _gold(form)
    return bool(found) and not isinstance(found[0], str)


def _said_last(text: str) -> list[Any]:
    box = last_box(text)
    return _parse(text) if box is None else _parse(f"\\boxed{{{box}}}") if box else []


@lru_cache(4096)
def _gold(answer: str) -> list[Any]:
    whole = last_box(answer)
    bare = answer.strip().strip("$").strip() if whole is None else whole
    return _parse(f"\\boxed{{{bare}}}") if bare else []


def _parse(text: str) -> list[Any]:
    """math-verify's parse, best first: a sympy expression and the text that it came from; the text alone if none parsed."""
    from math_verify import parse

    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # it warns about the missing timeout, which needs the main thread
    found: list[Any] = parse(text, parsing_timeout=None)
    return found
