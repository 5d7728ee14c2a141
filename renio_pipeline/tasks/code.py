"""Programs in Python, graded by running their tests in a sandbox."""

from __future__ import annotations

import re

from renio_pipeline.sandbox.box import Limits, Mode, check
from renio_pipeline.sandbox.trial import ALL_SECONDS, Tests, passes, read_tests
from renio_pipeline.tasks import shown_solution
from renio_pipeline.tasks.plain import Plain
from renio_pipeline.types import Row, Verdict

INSTRUCTION = "Write your solution in Python, and put the whole program in one ```python code block at the end."
_SCRIPT = " It reads standard input and prints to standard output."
_FUNCTION = " It defines the function `{}`."
_BLOCK = re.compile(r"^[ \t]*```[ \t]*(?:python3?|py)?[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE | re.IGNORECASE)


class Code(Plain):
    """The last code block of a response is the program; ``Row.tests`` says what it must do.

    Tests are a Python program of asserts, one that defines ``check(candidate)``, or JSON with ``inputs`` and ``outputs``
    (and ``fn_name``, where a function is tested and not a whole program).
    """

    name = "code"
    slow = True

    def __init__(
        self, sandbox: Mode = "strict", seconds: float = 6.0, memory_mb: int = 1024, processes: int = 16,
        instruction: str = INSTRUCTION,
    ) -> None:  # fmt: skip
        """``seconds`` of CPU time, and twice that by the clock, for each input of a program, or for all its asserts.

        Raises:
            ConfigError: the machine cannot make the sandbox.
            ValueError: an option is out of its range.
        """
        if not 0 < 2 * seconds <= ALL_SECONDS:
            raise ValueError(f"seconds is {seconds}; expected more than 0, and at most {ALL_SECONDS / 2:g}")
        if memory_mb < 128 or processes < 4:
            raise ValueError(f"memory_mb is {memory_mb} and processes {processes}; expected at least 128 and 4")
        self._limits = Limits(seconds=seconds, memory_mb=memory_mb, processes=processes)
        self._mode: Mode = sandbox
        self._instruction = instruction
        check(sandbox)

    def messages(self, row: Row) -> list[dict[str, str]]:
        tests = read_tests(row.tests, row.problem) if row.tests else Tests()
        what = _FUNCTION.format(tests.entry) if tests.entry else "" if tests.asserts or not tests.cases else _SCRIPT
        return [{"role": "user", "content": f"{row.problem}\n\n{self._instruction}{what}"}]

    def privileged_messages(self, row: Row) -> list[dict[str, str]]:
        return shown_solution(self.messages(row), row)

    def verify(self, row: Row, text: str) -> Verdict | None:
        if row.tests is None:
            return None
        code = self.final_answer(text)
        if code is None:
            return "unfinished"
        return "correct" if passes(code, read_tests(row.tests, row.problem), self._limits, self._mode) else "incorrect"

    def final_answer(self, text: str) -> str | None:
        """The last code block, outside of what a model thinks before it answers."""
        blocks = _BLOCK.findall(text.rpartition("</think>")[2])
        return blocks[-1].rstrip() if blocks else None

    def fault(self, row: Row) -> str | None:
        try:
            if row.tests is not None:
                read_tests(row.tests, row.problem)
        except (ValueError, SyntaxError) as error:
            return f"tests cannot be used: {error}"
        return None
