"""The registry of tasks, their options, and a task of the user's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.grading.questions import grade
from renio_pipeline.tasks import REGISTRY, make_task
from renio_pipeline.tasks.mixed import MixedTask, error_kind
from renio_pipeline.tasks.own import TaskError
from renio_pipeline.types import Row

ROW = Row(id="r7", problem="2+2", answer="4", solution="2+2=4", line=12)
PROTOCOL = ("name", "slow", "rows", "messages", "privileged_messages", "verify", "final_answer", "fault")

ECHO = """
from dataclasses import dataclass

@dataclass
class Loud:  # a dataclass looks its module up while it is made
    mark: str = "!"

class Shout:
    def __init__(self, mark: str = "!", times: int = 1):
        self.mark = Loud(mark).mark * times
    def messages(self, row):
        return [{"role": "system", "content": "Shout."}, {"role": "user", "content": row.problem + self.mark}]
    def verify(self, row, text):
        return "correct" if text == row.answer + self.mark else "incorrect"
"""


def refusal(name: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        make_task(name, options)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(ECHO)
    return path


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_registered_task_has_the_whole_protocol(name: str) -> None:
    if name == "reasoning-gym":
        pytest.importorskip("reasoning_gym")
    task = make_task(name, {"dataset": "chain_sum"} if name == "reasoning-gym" else {})
    assert not [member for member in PROTOCOL if not hasattr(task, member)]
    assert task.name == name


def test_an_unknown_task_is_told_the_known_ones() -> None:
    assert refusal("chess").startswith("task: 'chess' is not known; allowed: arithmetic, plain, maths, code, reasoning-gym")


def test_options_reach_the_constructor() -> None:
    assert make_task("arithmetic", {"terms": 2}).rows("train", 1)[0].problem.count("+") <= 1
    assert make_task("maths", {"instruction": "Be brief."}).messages(ROW)[0]["content"] == "2+2\n\nBe brief."


def test_a_bad_option_is_named_by_its_key() -> None:
    assert refusal("arithmetic", therms=3) == "task_options.therms: task arithmetic has no such option; did you mean terms?"
    assert refusal("plain", x=1) == "task_options.x: task plain has no such option; allowed: none"
    assert refusal("arithmetic", terms="many").startswith("task_options.terms: Input should be a valid integer")
    assert refusal("arithmetic", terms=1) == "task_options: arithmetic: terms is 1, but a problem has at least 2"
    assert refusal("reasoning-gym") == "task_options.dataset: required by task reasoning-gym"


def test_a_users_task_is_loaded_with_its_options(file: Path) -> None:
    task = make_task(f"{file}:Shout", {"times": 2})
    assert task.messages(ROW)[-1]["content"] == "2+2!!"
    assert [task.verify(ROW, text) for text in ("4!!", "4")] == ["correct", "incorrect"]


def test_what_a_users_task_lacks_is_as_in_plain(file: Path) -> None:
    task = make_task(f"{file}:Shout")
    assert (task.name, task.slow) == ("Shout", True)
    assert task.final_answer("so\n4!\n") == "4!"
    assert task.fault(ROW) is None
    system, user = task.privileged_messages(ROW)
    assert system == {"role": "system", "content": "Shout."}
    assert user["content"].startswith("2+2!\n\nA reference solution:\n2+2=4\n\n")
    with pytest.raises(ConfigError, match=r"task Shout generates no problems: set data\.path"):
        task.rows("train", 3)


def test_a_constructor_may_take_any_option_and_hints_that_only_a_type_checker_sees(file: Path) -> None:
    file.write_text(
        ECHO + "\nclass Any(Shout):\n    def __init__(self, n: 'Nowhere' = 1, **more):\n        self.mark = f'{n}{more}'\n"
    )
    assert make_task(f"{file}:Any", {"n": 2, "x": "y"}).messages(ROW)[-1]["content"] == "2+22{'x': 'y'}"


def test_a_path_is_relative_to_the_working_directory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert make_task("mine.py:Shout").name == "Shout"


def test_a_file_or_class_that_is_not_there_is_said(file: Path) -> None:
    assert f"task: {file.parent / 'no.py'} is not a file" in refusal(f"{file.parent / 'no.py'}:Shout")
    assert refusal(f"{file}:Whisper") == f"task: {file} has no class 'Whisper'"
    assert "names no class; expected path.py:Class" in refusal(str(file))
    assert refusal(f"{file}:Shout", marc="?") == "task_options.marc: task Shout has no such option; did you mean mark?"


def test_a_missing_method_is_named(file: Path) -> None:
    file.write_text("class Half:\n    def messages(self, row): ...\n")
    assert refusal(f"{file}:Half") == f"task: Half in {file} has no method verify; a task needs messages and verify"


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("import nowhere_at_all\n", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("class Shout\n", "SyntaxError: "),
        ("def f():\n    return 1 / 0\nf()\n", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
    ],
)
def test_a_file_that_cannot_be_imported_shows_its_traceback(file: Path, text: str, last: str) -> None:
    file.write_text(text)
    said = refusal(f"{file}:Shout")
    assert said.startswith(f"task: {file} cannot be imported:\nTraceback (most recent call last):\n")
    assert last in said
    assert f'File "{file}"' in said
    assert "own.py" not in said, "frames of ours are not where the fault is"


def test_a_constructor_that_raises_shows_its_traceback(file: Path) -> None:
    file.write_text(ECHO + "\nclass Deaf(Shout):\n    def __init__(self):\n        raise OSError('deaf')\n")
    said = refusal(f"{file}:Deaf")
    assert said.startswith(f"task: {file}:Deaf cannot be constructed:\nTraceback")
    assert said.endswith("OSError: deaf")


@pytest.mark.parametrize("method", ["messages", "verify", "privileged_messages", "final_answer", "fault"])
def test_a_method_that_raises_shows_its_traceback_and_what_it_was_given(file: Path, method: str) -> None:
    arguments = {"verify": "row, text", "final_answer": "text"}.get(method, "row")
    file.write_text(ECHO + f"    def {method}(self, {arguments}):\n        return {{}}['missing']\n")
    task = make_task(f"{file}:Shout")
    given = {"verify": (ROW, "a response"), "final_answer": ("a response",)}.get(method, (ROW,))
    with pytest.raises(TaskError) as caught:
        getattr(task, method)(*given)
    said = str(caught.value)
    assert said.startswith(f"task: {file}: {method} raised for ")
    assert "return {}['missing']" in said
    assert "KeyError: 'missing'" in said
    for argument in given:
        wanted = "row 'r7', line 12 of its file (problem '2+2', answer '4')" if argument is ROW else "'a response'"
        assert wanted in said


@pytest.mark.parametrize("given", ["True", "False", "__import__('numpy').bool_(1)"])
def test_a_truth_value_is_told_what_to_return_instead(file: Path, given: str) -> None:
    file.write_text(ECHO + f"    def verify(self, *arguments):\n        return {given}\n")
    with pytest.raises(TaskError, match=r"; of a truth value, return 'correct' if it is right, else 'incorrect'$"):
        make_task(f"{file}:Shout").verify(ROW, "")


@pytest.mark.parametrize(
    ("given", "verdict", "score"),
    [("1", "correct", 1.0), ("1.0", "correct", 1.0), ("0.5", "incorrect", 0.5), ("0", "incorrect", 0.0),
     ("__import__('numpy').float32(0.25)", "incorrect", 0.25)],
)  # fmt: skip
def test_a_score_is_kept_beside_its_verdict(file: Path, given: str, verdict: str, score: float) -> None:
    file.write_text(ECHO + f"    def verify(self, *arguments):\n        return {given}\n")
    task = make_task(f"{file}:Shout")
    assert task.verify(ROW, "") == verdict
    assert grade(task, ROW, "#4") == {"verdict": verdict, "score": score, "answer": task.final_answer("#4")}


@pytest.mark.parametrize("given", ["-0.1", "1.5", "2", "float('nan')", "float('inf')"])
def test_a_number_that_is_no_score_is_refused(file: Path, given: str) -> None:
    file.write_text(ECHO + f"    def verify(self, *arguments):\n        return {given}\n")
    with pytest.raises(TaskError, match=r"; divide a score by the largest one there is$"):
        make_task(f"{file}:Shout").verify(ROW, "")


def test_a_verdict_in_capitals_is_told_its_spelling(file: Path) -> None:
    file.write_text(ECHO + "    def verify(self, *arguments):\n        return 'Correct'\n")
    with pytest.raises(TaskError, match=r"not 'Correct', for row 'r7'.*; write 'correct'$"):
        make_task(f"{file}:Shout").verify(ROW, "")


def test_answers_of_several_lines_are_no_fault_of_a_users_own_task(file: Path) -> None:
    assert make_task(f"{file}:Shout").fault(Row(id="1", problem="?", answer="one\ntwo")) is None


@pytest.mark.parametrize(
    ("method", "arguments", "given", "message"),
    [
        (
            "verify",
            (ROW, ""),
            "True",
            "must return 'correct', 'incorrect', 'unfinished', a score from 0 to 1, or None, not True, for row 'r7'",
        ),
        ("final_answer", ("so 4",), "{4}", "must return text or None, not {4}, for 'so 4'"),
        ("fault", (ROW,), "False", "must return text or None, not False, for row 'r7'"),
        ("error_kind", (ROW, "so 4"), "4", "must return text or None, not 4, for row 'r7'"),
        ("messages", (ROW,), "'2+2'", "must return a list of {'role': ..., 'content': ...}, not '2+2', for row 'r7'"),
        ("rows", ("train", 1), "['2+2']", "must return a list of renio_pipeline.types.Row, not a list with str"),
    ],
)
def test_what_a_method_gives_is_checked(file: Path, method: str, arguments: tuple[Any, ...], given: str, message: str) -> None:
    file.write_text(ECHO + f"    def {method}(self, *arguments):\n        return {given}\n")
    with pytest.raises(TaskError) as caught:
        getattr(make_task(f"{file}:Shout"), method)(*arguments)
    assert str(caught.value).startswith(f"task: {file}: {method} {message}")


def test_kinds_of_errors_are_those_of_each_rows_own_task_where_it_tells_them_apart() -> None:
    sums, words = make_task("arithmetic"), make_task("plain")
    row = Row(id="sums/1", problem="1+2+3+4", answer="10", source="sums")
    mixed = MixedTask({"sums": sums, "words": words})
    slip, guess = "1+2=3;3+3=7;7+4=11;#11", "1+2=3;#40"
    assert [error_kind(task, row, text) for task in (sums, mixed) for text in (slip, guess)] == ["slipped", "guessed"] * 2
    assert error_kind(words, row, slip) is None
    assert error_kind(mixed, replace(row, id="words/1", source="words"), slip) is None
