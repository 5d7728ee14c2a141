"""Programs in Python, graded by running their tests in a sandbox."""

from __future__ import annotations

from renio_pipeline.sandbox.box import check
from renio_pipeline.sandbox.limits import Limits, Mode
from renio_pipeline.sandbox.reading import Tests, read_tests
from renio_pipeline.sandbox.trial import ALL_SECONDS, passes
from renio_pipeline.tasks.plain import Plain
from renio_pipeline.tasks.program_text import program_in
from renio_pipeline.tasks.protocol import shown_solution
from renio_pipeline.types import Row, Verdict

INSTRUCTION = "Write your solution in Python, and put the whole program in one ```python code block at the end."
_SCRIPT = " It reads standard input and prints to standard output."
_FUNCTION = " It defines the function `{}`."


class Code(Plain):
    """The last code block of a response is the program; ``Row.tests`` specifies what it must do.

    Tests are a Python program of asserts (possibly as functions ``test_...`` or as unittests), a program that defines
    ``check(candidate)``, or JSON with ``inputs`` and ``outputs`` (and ``fn_name``, if a function is tested instead of a
    whole program), see ``read_tests``.
    """

    name = "code"
    slow = True

    def __init__(
        self,
        sandbox: Mode = "strict",
        seconds: float = 6.0,
        memory_mb: int = 1024,
        processes: int = 16,
        instruction: str = INSTRUCTION,
        assumed_imports: bool = True,
    ) -> None:
        """
        Args:
            sandbox: strict (with namespaces) or weak (resource limits only).
            seconds: CPU time of each process for each input of a program, or for all its asserts. A program that only sleeps or
                waits is given up after twice that by the clock; what the machine does otherwise does not count.
            memory_mb: memory of the program and everything it starts, in MiB.
            processes: how many processes the program may have.
            instruction: text that follows the problem.
            assumed_imports: whether programs may use names that published graders import beforehand without importing them:
                ``List``, ``Optional``, ``deque``, ``defaultdict``, ``math``, ``heappush`` and their like.

        Raises:
            ConfigError: the sandbox cannot be created on this machine.
            ValueError: an option is out of its range.
        """
        if not 0 < 2 * seconds <= ALL_SECONDS:
            raise ValueError(f"seconds is {seconds}; expected more than 0, and at most {ALL_SECONDS / 2:g}")
        if memory_mb < 128 or processes < 4:
            raise ValueError(f"memory_mb is {memory_mb} and processes {processes}; expected at least 128 and 4")
        self._limits = Limits(seconds=seconds, memory_mb=memory_mb, processes=processes)
        self._mode: Mode = sandbox
        self._instruction = instruction
        self._assumed_imports = assumed_imports
        check(sandbox)

    def messages(self, row: Row) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"{row.problem}\n\n{self.instruction_for(row)}"}]

    def instruction_for(self, row: Row) -> str:
        """The instruction, and what the row's tests run: a function, or the whole program."""
        tests = read_tests(row.tests, row.problem) if row.tests else Tests()
        what = _FUNCTION.format(tests.entry) if tests.entry else "" if tests.asserts or not tests.cases else _SCRIPT
        return self._instruction + what

    def privileged_messages(self, row: Row) -> list[dict[str, str]]:
        return shown_solution(self.messages(row), row)

    def verify(self, row: Row, text: str) -> Verdict | None:
        if row.tests is None:
            return None
        code = self.final_answer(text)
        if code is None:
            return "unfinished"
        tests = read_tests(row.tests, row.problem)
        passed = passes(code, tests, self._limits, self._mode, problem=row.problem, assume=self._assumed_imports)
        return "correct" if passed else "incorrect"

    def final_answer(self, text: str) -> str | None:
        """The last code block that is Python, see ``program_in``."""
        return program_in(text)

    def fault(self, row: Row) -> str | None:
        try:
            if row.tests is not None:
                read_tests(row.tests, row.problem)
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:  # the parser raises the last two
            return f"tests cannot be used: {error}"
        return None
