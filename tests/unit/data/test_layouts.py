"""Data as the field keeps it: nested fields, chat messages, and the layouts of frameworks and published data sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renio_pipeline.config import ConfigError
from renio_pipeline.config.layouts import PRESETS
from renio_pipeline.config.schema import Source
from renio_pipeline.data.layouts.paths import value_at
from renio_pipeline.data.prints import content_of
from renio_pipeline.data.sources import TRAINING, load_rows
from renio_pipeline.tasks import make_task
from renio_pipeline.tasks.phrasing import Phrasing, Prompts
from renio_pipeline.types import Row

ASK = {"role": "user", "content": "What is 1+1?"}
# A made-up row in each layout, and what is to become of it.
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "openthoughts-maths": ({"problem": "1+1?", "solution": "It is 2.", "Answer": "2"}, {"problem": "1+1?", "answer": "2"}),
    "openthoughts-code": (
        {"problem": "Add.", "ground_truth_solution": "def f(): ...", "test_cases": json.dumps(["assert f() == 2"])},
        {"problem": "Add.", "solution": "def f(): ...", "tests": json.dumps(["assert f() == 2"])},
    ),
    "trl": (
        {"prompt": [ASK], "solution": "2", "privileged_context": "Add the ones."},
        {"problem": "What is 1+1?", "answer": "2", "solution": "Add the ones."},
    ),
    "verl": (
        {
            "data_source": "made/up",
            "prompt": [{"role": "system", "content": "Be brief."}, ASK],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "2"},
            "extra_info": {"split": "train", "index": 0, "answer": "1+1=2"},
        },
        {"problem": "What is 1+1?", "answer": "2", "solution": "1+1=2", "context": (("system", "Be brief."),)},
    ),
    "gsm8k": (
        {"question": "She has 1 and gets 1,000.", "answer": "1+1,000=<<1+1000=1001>>1,001\n#### 1,001"},
        {"problem": "She has 1 and gets 1,000.", "answer": "1,001", "solution": "1+1,000=<<1+1000=1001>>1,001\n#### 1,001"},
    ),
    "math": (
        {"problem": "1+1?", "solution": "\\boxed{2}", "answer": "2", "level": 1, "unique_id": "test/1.json"},
        {"id": "test/1.json", "problem": "1+1?", "answer": "2", "solution": "\\boxed{2}"},
    ),
    "deepmath": (
        {"question": "1+1?", "final_answer": "2", "difficulty": 1.5, "r1_solution_1": "So 2."},
        {"problem": "1+1?", "answer": "2", "solution": "So 2."},
    ),
    "dapo": (
        {"prompt": [ASK], "reward_model": {"ground_truth": "2"}, "extra_info": {"index": "9a-b"}},
        {"id": "9a-b", "problem": "What is 1+1?", "answer": "2"},
    ),
    "humaneval": (
        {"task_id": "M/0", "prompt": "def f():\n", "canonical_solution": "    return 2",
         "test": "def check(c):\n    assert c() == 2", "entry_point": "f"},
        {"id": "M/0", "problem": "def f():\n", "solution": "    return 2"},
    ),
    "mbpp": (
        {"task_id": 7, "prompt": "Write f.", "code": "def f(): return 2", "test_imports": [], "test_list": ["assert f() == 2"]},
        {"id": "7", "solution": "def f(): return 2",
         "problem": "Write f.\n\nYour code should pass this test:\nassert f() == 2"},
    ),
    "chat": (
        {"messages": [{"role": "system", "content": "Be brief."}, ASK, {"role": "assistant", "content": "2."}]},
        {"problem": "What is 1+1?", "context": (("system", "Be brief."),), "solution": "2.", "answer": None},
    ),
}  # fmt: skip


def lines(folder: Path, records: list[dict[str, Any]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def parquet(folder: Path, records: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(records), folder / "rows.parquet")
    return folder / "rows.parquet"


WRITE = [lines, parquet]


def read(path: Path, preset: Any = None, **fields: str) -> list[Row]:
    rows = load_rows(Source(path=str(path), preset=preset, fields=fields), optional=TRAINING)
    return [rows[i] for i in range(len(rows))]


@pytest.mark.parametrize("write", WRITE)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_row_in_a_known_layout_is_read(write: Callable[..., Path], preset: str, tmp_path: Path) -> None:
    record, expected = ROWS[preset]
    (row,) = read(write(tmp_path, [record]), preset)
    for field, value in expected.items():
        assert getattr(row, field) == value, field


@pytest.mark.parametrize("preset", ["humaneval", "mbpp"])
def test_the_tests_of_programs_are_judged(preset: str, tmp_path: Path) -> None:
    task = make_task("code")
    (row,) = read(lines(tmp_path, [ROWS[preset][0]]), preset)
    assert task.fault(row) is None
    assert task.verify(row, "```python\ndef f(): return 2\n```") == "correct"
    assert task.verify(row, "```python\ndef f(): return 3\n```") == "incorrect"


@pytest.mark.parametrize("write", WRITE)
def test_a_field_inside_of_objects_is_named_by_its_path(write: Callable[..., Path], tmp_path: Path) -> None:
    records = [{"q": {"text": "1+1?"}, "extra": {"answer": {"final": i}}} for i in (2, 3)]
    rows = read(write(tmp_path, records), problem="q.text", answer="extra.answer.final")
    assert [(row.problem, row.answer) for row in rows] == [("1+1?", "2"), ("1+1?", "3")]


def test_a_path_that_no_row_has_is_an_error_and_one_that_some_lack_is_told(tmp_path: Path) -> None:
    path = lines(tmp_path, [{"problem": "a", "x": {"y": 1}}, {"problem": "b", "x": {}}])
    with pytest.raises(ConfigError, match=r"data\.fields\.answer: no line of .* has a field 'x\.z'"):
        read(path, answer="x.z")
    rows = load_rows(Source(path=str(path), fields={"answer": "x.y"}))
    assert rows.notes[0].startswith("data.fields.answer: 1 of 2 lines")


def test_what_a_published_data_set_may_lack_is_no_error_unless_the_user_names_it(tmp_path: Path) -> None:
    path = lines(tmp_path, [{"prompt": [ASK], "reward_model": {"ground_truth": "2"}}])
    assert read(path, "verl")[0].solution is None
    with pytest.raises(ConfigError, match=r"data\.fields\.solution"):
        read(path, "verl", solution="extra_info.answer")
    with pytest.raises(ConfigError, match=r"reward_model\.ground_truth"):
        read(lines(tmp_path, [{"prompt": [ASK]}]), "verl")


@given(st.dictionaries(st.text("ab.", min_size=1), st.integers() | st.dictionaries(st.text("ab"), st.integers())))
def test_a_field_of_the_whole_name_takes_precedence(record: dict[str, Any]) -> None:
    for name in record:
        assert value_at(record, name) == record[name]
    for name, inner in record.items():
        if isinstance(inner, dict):
            for below, value in inner.items():
                if f"{name}.{below}" not in record and "." not in name and below:
                    assert value_at(record, f"{name}.{below}") == value


TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "1+1?"}]},
]


@pytest.mark.parametrize("name", ["problem", "messages", "prompt"])
def test_the_last_of_a_list_of_messages_asks_and_the_others_stand_before_it(name: str, tmp_path: Path) -> None:
    (row,) = read(lines(tmp_path, [{name: TURNS, "answer": "2"}]), problem=name)
    assert row.problem == "What is 1+1?"
    assert row.context == (("system", "Be brief."), ("user", "Hello."), ("assistant", "Yes?"))
    before = [{"role": role, "content": content} for role, content in row.context]
    task = make_task("maths")
    assert Phrasing(task).messages(row, "student") == [*before, *task.messages(row)]
    asked = Phrasing(task, Prompts(system="Be exact.", student="Q: {problem}")).messages(row, "student")
    assert asked == [{"role": "system", "content": "Be exact."}, *before[1:], {"role": "user", "content": "Q: What is 1+1?"}]


def test_what_was_said_before_is_a_part_of_the_row() -> None:
    plain = Row(id="a", problem="p")
    said = [Row(id="a", problem="p", context=context) for context in ((("system", "x"),), (("system", "y"),))]
    assert len({content_of(row) for row in (plain, *said)}) == 3


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([ASK, {"role": "assistant", "content": "2"}], "line 1: field 'problem' ends with a message of assistant"),
        ([{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "2"}], "ends with a message of assistant"),
        ([{"role": "user", "content": [{"type": "image", "image": "x"}]}], "other parts than text in its message 0"),
        ([{"role": "user", "content": None}], "has no text in its message 0"),
        ([{"role": "user", "content": " "}], "field 'problem' must be non-empty text"),
    ],
)
def test_messages_that_ask_nothing_are_refused(messages: list[Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read(lines(tmp_path, [{"problem": messages}]))
    assert told in str(error.value)


PLUS = {
    "task_id": 7, "prompt": "Write f.", "code": "def f(x): return x", "source_file": "a.py", "test_imports": "['import math']",
    "test_list": "['assert f(2) == 2', 'assert f(3) == 3']",
    "test": "inputs = [[1], [4]]\nresults = [1, 4]\nfor inp, exp in zip(inputs, results):\n    assert f(*inp) == exp\n",
}  # fmt: skip


@pytest.mark.parametrize("write", WRITE)
def test_mbpp_plus_is_judged_by_its_own_tests_and_mbpp_by_its_list(write: Callable[..., Path], tmp_path: Path) -> None:
    task = make_task("code")
    (row,) = read(write(tmp_path, [PLUS]), "mbpp")
    assert row.problem == "Write f.\n\nYour code should pass this test:\nassert f(2) == 2"
    assert row.tests == PLUS["test"]
    assert task.verify(row, "```python\ndef f(x): return x\n```") == "correct"
    assert task.verify(row, "```python\ndef f(x): return x if x < 4 else 0\n```") == "incorrect"
    base = {
        "task_id": 1,
        "text": "Write f.",
        "code": "x",
        "test_setup_code": "",
        "test_list": ["assert f(math.inf) == math.inf"],
    }
    (row,) = read(lines(tmp_path, [base | {"test_imports": ["import math"]}]), "mbpp")
    assert row.problem.startswith("Write f.\n\nYour code should pass this test:\nassert f(math.inf)")
    assert task.verify(row, "```python\ndef f(x): return x\n```") == "correct"


@pytest.mark.parametrize("write", WRITE)
def test_answers_that_are_lists_numbers_and_dates_are_text(write: Callable[..., Path], tmp_path: Path) -> None:
    answers: list[tuple[Any, str | None]] = [
        (["2", "3"], "2, 3"), ([7], "7"), ([2.50, 3], "2.5, 3"), ([], None), (7, "7"), (1.0, "1"), ("2024-05-01", "2024-05-01"),
        ([None, "4"], "4"),
    ]  # fmt: skip
    for value, expected in answers:
        (row,) = read(write(tmp_path, [{"problem": "a", "answer": value, "other": "x"}]))
        assert row.answer == expected, value
    (row,) = read(parquet(tmp_path, [{"problem": "a", "answer": date(2024, 5, 1)}]))
    assert row.answer == "2024-05-01"


def test_a_list_of_answers_is_the_set_of_them_for_the_maths_task(tmp_path: Path) -> None:
    (row,) = read(lines(tmp_path, [{"problem": "x^2-5x+6=0?", "answer": ["2", "3"]}]))
    task = make_task("maths")
    assert [task.verify(row, f"So \\boxed{{{said}}}") for said in ("3, 2", "2", "2, 3")] == ["correct", "incorrect", "correct"]


@pytest.mark.parametrize("value", [[["2"]], [{"a": 1}], [True]])
def test_a_list_of_anything_else_is_refused_with_its_row(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 1: field 'answer' must be text or a number, got"):
        read(lines(tmp_path, [{"problem": "a", "answer": value}]))


MIXED = [
    {"data_source": name, "prompt": [ASK], "reward_model": {"ground_truth": i}, "extra_info": {"index": i}}
    for i, name in enumerate(["openai/gsm8k", "code", "openai/gsm8k", "math", "code"])
]


@pytest.mark.parametrize("write", WRITE)
def test_rows_of_one_data_source_of_a_file_are_read_with_their_own_numbers(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(tmp_path, MIXED)
    for only, expected in (
        ({"data_source": "code"}, ["1", "4"]),
        ({"data_source": ["openai/gsm8k", "math"]}, ["0", "2", "3"]),
        ({"data_source": "code", "extra_info.index": 4}, ["4"]),
    ):
        rows = load_rows(Source(path=str(path), preset="verl", only=only), optional=TRAINING)
        assert [row.answer for row in rows] == expected
        assert [row.line for row in rows] == [int(number) + 1 for number in expected]
        assert rows.where(rows[0]).endswith(f" {int(expected[0]) + 1}")


def test_values_that_no_row_has_are_refused_with_those_that_there_are(tmp_path: Path) -> None:
    said = r"data.only: no line of .* has data_source: 'gsm8k'; there are 'openai/gsm8k', 'code', 'math'"
    with pytest.raises(ConfigError, match=said):
        load_rows(Source(path=str(lines(tmp_path, MIXED)), preset="verl", only={"data_source": "gsm8k"}))
    with pytest.raises(ConfigError, match=r"data.only: no line of .* has source: 'gsm8k'$"):
        load_rows(Source(path=str(lines(tmp_path, MIXED)), preset="verl", only={"source": "gsm8k"}))


def test_a_row_that_is_not_wanted_may_be_bad(tmp_path: Path) -> None:
    path = lines(tmp_path, [*MIXED, {"data_source": "broken"}])
    assert len(load_rows(Source(path=str(path), preset="verl", only={"data_source": "code"}))) == 2
    with pytest.raises(ConfigError, match="line 6"):
        load_rows(Source(path=str(path), preset="verl"))
