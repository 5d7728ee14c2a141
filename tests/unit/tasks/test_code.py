"""The task `code`: programs that are right pass, programs that only claim to be right do not."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.sandbox.reading import read_tests
from renio_pipeline.tasks import make_task
from renio_pipeline.types import Row

ASSERTS = """
assert double(2) == 4
assert all(double(i) == 2 * i for i in range(5))
assert double([1, (2, "x")]) == [1, (2, "x"), 1, (2, "x")]
assert isinstance(double(1.5), float)
"""
CHECK = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(candidate(2)) == 8\n"
SUMS = json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]})
CALLS = json.dumps({"fn_name": "double", "inputs": [[2], ["a"], [[1]]], "outputs": [4, "aa", [[1, 1]]]})
RIGHT = "def double(x):\n    return x + x"
PROBLEM = 'def double(x):\n    """Twice x."""\n'


@pytest.fixture(scope="module")
def task() -> Any:
    return make_task("code", {"seconds": 6})


@pytest.fixture(scope="module")
def hasty() -> Any:
    """The same with little patience, for programs that never end."""
    return make_task("code", {"seconds": 1})


def verdict(task: Any, tests: str | None, code: str) -> Any:
    return task.verify(Row(id="0", problem=PROBLEM, tests=tests), f"It is easy.\n\n```python\n{code}\n```\n")


@pytest.mark.parametrize("tests", [ASSERTS, CHECK, CALLS], ids=["asserts", "check", "calls"])
def test_a_function_is_judged_by_what_it_returns(task: Any, tests: str) -> None:
    assert verdict(task, tests, RIGHT) == "correct"
    assert verdict(task, tests, "def double(x):\n    return 4") == "incorrect"
    assert verdict(task, tests, "def double(x):\n    raise ValueError(x)") == "incorrect"
    assert verdict(task, tests, "def triple(x):\n    return x + x") == "incorrect"
    assert verdict(task, tests, "def double(x) return") == "incorrect"
    assert verdict(task, tests, "class Solution:\n    def double(self, x): return x + x") == (
        "incorrect" if tests is ASSERTS else "correct"
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("a, b = map(int, input().split())\nprint(a + b)", "correct"),
        ("import sys\nif __name__ == '__main__':\n    print(eval(sys.stdin.read().replace(' ', '+')))\n    exit()", "correct"),
        ("import threading\nthreading.Thread(target=lambda: print(sum(map(int, input().split())))).start()", "correct"),
        ("print(3)", "incorrect"),
        ("print(sum(map(int, input().split())))\nraise SystemExit(1)", "incorrect"),
        ("print(sum(map(int, input().split())))\n1 / 0", "incorrect"),
        ("", "incorrect"),
    ],
)
def test_a_whole_program_is_judged_by_what_it_prints(task: Any, code: str, expected: str) -> None:
    assert verdict(task, SUMS, code) == expected


CHEATS = {
    "leaves by the back door": "import os\nos._exit(0)",
    "leaves by the front door": "import sys\nsys.exit(0)",
    "leaves when called": "import os\ndef double(x): os._exit(0)",
    "leaves when called, politely": "def double(x): raise SystemExit(0)",
    "equals everything": """
class Yes:
    __eq__ = lambda *_: True
    __add__ = lambda *_: Yes()
def double(x): return Yes()
""",
    "is a number that equals everything": "class Yes(float):\n    __eq__ = lambda *_: True\ndef double(x): return Yes()",
    "changes the language": """
import builtins
builtins.all = lambda _: True
builtins.isinstance = lambda *_: True
def double(x): return 4
""",
    "brings its own all": "def all(_): return True\ndef isinstance(*_): return True\ndef double(x): return 4",
    "silences failures": "import sys, os\nsys.excepthook = lambda *_: os._exit(0)\ndef double(x): return None",
    "at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef double(x): return None",
    "prints success": """
print("passed")
print('{"output": "passed", "status": 0, "over": false}')
def double(x): return None
""",
    "writes success wherever it can": """
import os
for fd in range(64):
    for text in (b"passed", b'{"output": "passed", "status": 0, "over": false}\\n'):
        try: os.write(fd, text)
        except OSError: pass
def double(x): return None
""",
    "answers before it is asked": """
import os
for _ in range(50):
    try: os.write(3, b'{"dict": [["value", true], ["args", []]]}\\n')
    except OSError: pass
""",
    "looks at its callers": """
import sys
def double(x):
    frame = sys._getframe()
    while frame:
        for value in (*frame.f_code.co_consts, *frame.f_locals.values(), *frame.f_globals.values()):
            if value in (4, "aa", "3"): return value
        frame = frame.f_back
""",
    "looks for the tests on the disk": """
import glob, os
def double(x):
    for folder in ("/box", "/home", "/tmp", "/var", "/dev"):
        for path in glob.glob(folder + "/**", recursive=True):
            if os.path.isfile(path) and "4" in open(path).read(): return 4
""",
    "frightens the tests": "def double(x): raise AssertionError",
    "never answers": "import time\ndef double(x): time.sleep(60)",
    "answers nonsense": "import os\ndef double(x):\n    while True: os.write(3, b'[' * 100000)",
}


@pytest.mark.parametrize("tests", [ASSERTS, CALLS, SUMS], ids=["asserts", "calls", "whole programs"])
@pytest.mark.parametrize("cheat", CHEATS.values(), ids=CHEATS.keys())
@pytest.mark.slow
def test_a_program_that_fakes_success_does_not_pass(hasty: Any, tests: str, cheat: str) -> None:
    assert verdict(hasty, tests, cheat) == "incorrect"


FOOLING = [
    "leaves by the back door", "leaves by the front door", "leaves when called", "leaves when called, politely", "at exit",
    "equals everything", "is a number that equals everything", "changes the language", "brings its own all",
    "silences failures",
]  # fmt: skip


@pytest.mark.parametrize("name", FOOLING)
def test_the_same_program_passes_where_tests_share_its_interpreter(name: str, tmp_path: Path) -> None:
    source = tmp_path / "naive.py"
    source.write_text(f"{CHEATS[name]}\nassert double(2) == 4\nassert all(double(i) == 2 * i for i in range(5))\n")
    assert subprocess.run([sys.executable, "-S", source], timeout=20, check=False, stderr=subprocess.DEVNULL).returncode == 0


def test_what_is_no_plain_data_is_not_the_type_error_that_a_test_expects(task: Any) -> None:
    tests = "try:\n    double(None)\nexcept TypeError:\n    pass\nelse:\n    raise AssertionError\nassert double(1) == 2"
    assert verdict(task, tests, RIGHT) == "correct"  # None + None
    assert verdict(task, tests, "def double(x): return 2 if x else object()") == "incorrect"


def test_arguments_that_are_changed_in_place_are_changed_for_the_tests(task: Any) -> None:
    tests = "data = [3, 1, 2]\nassert order(data) is None\nassert data == [1, 2, 3]"
    assert verdict(task, tests, "def order(x): x.sort()") == "correct"
    assert verdict(task, tests, "def order(x): sorted(x)") == "incorrect"


def test_a_response_without_a_program_is_unfinished_and_a_row_without_tests_has_no_verdict(task: Any) -> None:
    row = Row(id="0", problem="", tests=SUMS)
    for text in ("", "print(3)", "```python\nprint(3", "<think>```python\nprint(3)\n```</think> I do not know"):
        assert task.verify(row, text) == "unfinished"
        assert task.final_answer(text) is None
    assert verdict(task, None, RIGHT) is None
    assert task.final_answer("```\nfirst\n```\nno:\n```python\nlast\n```") == "last"


@pytest.mark.parametrize(
    ("tests", "fault"),
    [(SUMS, None), (ASSERTS, None), (None, None), ("assert f(", "was never closed"),
     ("[1, 2]", "neither a Python program nor JSON"), ('{"inputs": [], "outputs": []}', "0 inputs"),
     ('{"inputs": ["1"], "outputs": []}', "1 inputs and 0 outputs"), ('{"inputs": 5, "outputs": 5}', "int and int"),
     ('{"inputs": [null], "outputs": [null]}', "None among inputs"), ('{"program": 5}', "is int"),
     ('{"fn_name": 5, "inputs": [[1]], "outputs": [1]}', '"fn_name" is 5'),
     ('{"fn_name": "f", "inputs": [1], "outputs": [1]}', "1 among inputs"),
     ('{"fn_name": "f", "inputs": ["abc"], "outputs": [1]}', "'abc' among inputs"),
     ("", "call no function"), ("# none", "call no function"), ("assert 1 + 1 == 2", "call no function"),
     ("f(3)", "assert nothing"), ("def idle():\n    assert f(1) == 2", "call no function"),
     ("def test_f(case):\n    assert f(case)", "tests take 'case'"),
     (CHECK, "the problem defines no function"), ("from math import *\nassert isclose(f(1), 1)", "import * from math"),
     ("from solution import f\nassert f(1)", None), ("import solution\nassert solution.f(1)", None),
     ("from elsewhere import g\nassert f(1) == g(1)", "import elsewhere, which"),
     ("from . import g\nassert f(1) == g(1)", "a neighbour, which"),
     ("assert Solution().f(1) == 1", None), ("assert solution.f(1) == 1", "nothing says that the program has a solution"),
     ("class T(Base):\n    pass\nassert T().f() == 1", "derive T from the program's Base"),
     ("import inspect\nassert 'for' in inspect.getsource(f)", "look into the program"),
     ("assert f(1) == 1\nassert f.__code__.co_argcount == 1", "look into the program"),
     ("from unittest.mock import patch\nwith patch('builtins.open'):\n    assert f(1)", "replace builtins.open"),
     ("from unittest import mock\nwith mock.patch.object(f, 'g'):\n    assert f(1)", "replace"),
     ("from unittest.mock import patch\nwith patch('builtins.input', lambda *_: '1'):\n    assert f() == 1", None),
     ("open('a', 'w').write('1')\nassert f('a') == 1", "use files (open)"),
     ("import os\nassert f(os.listdir('.'))", "use files"),
     ("import tempfile\nwith tempfile.TemporaryDirectory() as d:\n    assert f(d)", "use files (tempfile)"),
     ("import pytest\nwith pytest.warns(UserWarning):\n    f(1)\nassert f(2)", "look for warnings or logs"),
     ('["assert f(1) == 1", "assert f(2) == 2"]', None),
     ('{"test_list": ["assert f(1) == 1"], "test_setup_code": "import math"}', None),
     ('[{"input": "1", "output": "2", "testtype": "stdin"}]', None),
     ('[{"input": "1", "output": "2", "testtype": "functional"}]', "neither they nor the problem name"),
     ('[{"input": "1", "output": "2", "fn_name": "f"}, {"input": "1", "output": "2", "fn_name": "g"}]', "of several kinds"),
     ('[{"input": "1", "output": "2", "type": "stdin"}, {"input": "1", "output": "2", "type": "call"}]', "of several kinds"),
     ('{"fn_name": "Solution().f", "inputs": [[1]], "outputs": [1]}', None),
     ('{"fn_name": "f()", "inputs": [[1]], "outputs": [1]}', '"fn_name" is'),
     ("try:\n    import absent\nexcept ImportError:\n    pass\nimport numpy\nassert f(1)", None)],
)  # fmt: skip
def test_rows_with_tests_that_cannot_be_used_say_why(task: Any, tests: str | None, fault: str | None) -> None:
    found = task.fault(Row(id="0", problem="", tests=tests))
    assert (found is None) if fault is None else fault in found


def test_the_prompt_says_what_is_graded(task: Any) -> None:
    (whole,), (function,) = (task.messages(Row(id="0", problem="Add.", tests=t)) for t in (SUMS, CALLS))
    assert whole["content"].startswith("Add.\n\n")
    assert "standard input" in whole["content"]
    assert "`double`" in function["content"]


@pytest.mark.parametrize(
    ("options", "error"),
    [({"sandbox": "none"}, "task_options.sandbox"), ({"seconds": 0}, "task_options: seconds is 0"),
     ({"memory_mb": 1}, "memory_mb is 1"), ({"second": 1}, "did you mean seconds")],
)  # fmt: skip
def test_options_that_make_no_sense_name_their_key(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        make_task("code", options)


def test_only_names_that_tests_need_are_taken_from_the_program() -> None:
    code = "import math as m\nfrom os import path\ndef own(a): return a + given\n"
    code += "x = [other(i) for i in range(3)]\nassert f(x, path, m) == own(1)\ndef idle(): return never()"
    assert read_tests(code).names == ("f", "given", "other")


HABITS = {
    "pytest": "def test_double():\n    assert double(2) == 4",
    "main guard": "if __name__ == '__main__':\n    assert double(2) == 4",
    "unittest": """
import unittest
class Tests(unittest.TestCase):
    def test_double(self):
        self.assertEqual(double(2), 4)
""",
    "own check": CHECK + "check(double)",
}
HABITS["unittest with main"] = HABITS["unittest"] + "if __name__ == '__main__':\n    unittest.main()"


@pytest.mark.parametrize("tests", HABITS.values(), ids=HABITS.keys())
def test_asserts_run_wherever_habit_puts_them(task: Any, tests: str) -> None:
    assert verdict(task, tests, RIGHT) == "correct"
    assert verdict(task, tests, "def double(x): return 0") == "incorrect"


def test_tests_that_end_before_they_call_the_program_pass_nobody(task: Any) -> None:
    assert verdict(task, "import sys\nif sys.argv:\n    sys.exit()\nassert double(1) == 2", RIGHT) == "incorrect"


RECORD = """
from dataclasses import dataclass
@dataclass
class Pair:
    a: int
    b: int
def double(x):
    pair = Pair(x, x)
    return pair.a + pair.b
"""


@pytest.mark.parametrize("tests", [ASSERTS, CHECK, CALLS], ids=["asserts", "check", "calls"])
def test_a_program_may_define_dataclasses(task: Any, tests: str) -> None:
    assert verdict(task, tests, RECORD) == "correct"


def test_a_program_is_compiled_by_its_own_rules_and_has_the_names_that_programs_assume(task: Any) -> None:
    tests = json.dumps({"inputs": [""], "outputs": ["True"]})
    assert verdict(task, tests, "def f(a: int): pass\nprint(f.__annotations__['a'] is int)") == "correct"
    assert verdict(task, tests, "print(sys is not None)") == "correct"  # a published grader's names are there
    assert verdict(task, tests, "print(subprocess is not None)") == "incorrect"
    assert verdict(make_task("code", {"assumed_imports": False}), tests, "print(sys is not None)") == "incorrect"


LOOPS = [
    "assert all(map(lambda x: double(x) == 2 * x, [1, 2]))",
    "for got, wanted in zip(map(double, [1, 2]), [2, 4]):\n    assert got == wanted",
]


@pytest.mark.parametrize("raised", ["StopIteration", "StopAsyncIteration", "GeneratorExit", "KeyboardInterrupt"])
def test_no_exception_of_a_program_ends_the_loops_of_its_tests(task: Any, raised: str) -> None:
    for tests in LOOPS:
        assert verdict(task, tests, f"def double(x): raise {raised}") == "incorrect"


def call(result: Any) -> str:
    return json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [result]})


@pytest.mark.parametrize(
    ("result", "code", "expected"),
    [(0.5, "10 ** 400", "incorrect"), ("123", "'123'", "correct"), ("123", "123", "correct"), ("123", "12", "incorrect"),
     ("[1]", "[1]", "correct"), (["a"], "'a'", "correct"), (None, "None", "correct"), ("null", "None", "correct")],
)  # fmt: skip
def test_results_are_compared_with_text_and_with_what_it_says(task: Any, result: Any, code: str, expected: str) -> None:
    assert verdict(task, call(result), f"def f(x): return {code}") == expected


@pytest.mark.slow
def test_a_result_that_comes_in_drops_has_no_more_time_than_another(hasty: Any) -> None:
    began = time.monotonic()
    drops = "import os, time\nwhile True:\n    os.write(3, b' ')\n    time.sleep(0.1)"
    assert verdict(hasty, call(1), drops) == "incorrect"
    assert time.monotonic() - began < 10


def test_check_tests_the_function_that_the_problem_defines_last() -> None:
    assert read_tests(CHECK, "def helper(x):\n    return x\n\n\ndef double(x):\n").entry == "double"
    assert read_tests(json.dumps({"program": CHECK, "fn_name": "other"}), PROBLEM).entry == "other"
    assert read_tests(CHECK, "Complete:\n\n    def double(x):\n").entry == "double"
