"""Programs of asserts: whatever they share with the program under test, right programs pass, and cheating ones do not.

The cases are in two text files beside this one: ``code_shared.txt`` has tests (and perhaps their problem), a right program and
a wrong one; ``code_cheats.txt`` has tests and a program that would pass them if it shared their interpreter, or if they
believed what its objects say.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.tasks import make_task
from renio_pipeline.types import Row


def cases(name: str) -> dict[str, dict[str, str]]:
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    found = {}
    for case in re.split(r"^=== ", text, flags=re.MULTILINE)[1:]:
        title, *parts = re.split(r"^--- ", case, flags=re.MULTILINE)
        found[title.strip()] = {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}
    return found


SHARED, CHEATS = cases("code_shared.txt"), cases("code_cheats.txt")


@pytest.fixture(scope="module")
def task() -> Any:
    return make_task("code", {"seconds": 6})


def verdict(task: Any, case: dict[str, str], code: str) -> Any:
    row = Row(id="0", problem=case.get("problem", "?"), tests=case["tests"])
    assert task.fault(row) is None
    return task.verify(row, f"```python\n{code}\n```")


@pytest.mark.parametrize("case", SHARED.values(), ids=SHARED.keys())
@pytest.mark.slow
def test_what_program_and_tests_share_is_judged(task: Any, case: dict[str, str]) -> None:
    assert verdict(task, case, case["right"]) == "correct"
    assert verdict(task, case, case["wrong"]) == "incorrect"


@pytest.mark.parametrize("case", CHEATS.values(), ids=CHEATS.keys())
@pytest.mark.slow
def test_no_object_exception_or_message_of_a_program_passes_for_a_result(task: Any, case: dict[str, str]) -> None:
    assert verdict(task, case, case["wrong"]) == "incorrect"
