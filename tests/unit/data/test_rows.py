"""Rows from a file: what is read, and which line is to blame when nothing is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from renio_pipeline.config import ConfigError
from renio_pipeline.config.schema import Source
from renio_pipeline.data.sources import load_rows
from renio_pipeline.types import Row


def read(path: Path, fields: Any = None, **arguments: Any) -> list[Row]:
    return list(load_rows(Source(path=str(path), fields=fields or {}), **arguments))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def refusal(path: Path, **arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(path, **arguments)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_every_field_is_read(path: Path) -> None:
    write(path, {"id": "a", "problem": "1+1", "answer": "2", "solution": "1+1=2", "source": "a column of theirs"})
    assert read(path) == [Row(id="a", problem="1+1", answer="2", solution="1+1=2")]


def test_a_row_without_an_id_has_its_line_number_blank_lines_counted(path: Path) -> None:
    path.write_text('{"problem": "a"}\n\n  \n{"problem": "b", "id": null}\n')
    assert [(row.id, row.problem) for row in read(path)] == [("1", "a"), ("4", "b")]


def test_numbers_are_taken_as_answers_and_ids(path: Path) -> None:
    write(path, {"id": 7, "problem": "a", "answer": 42}, {"problem": "b", "answer": -0.5}, {"problem": "c", "answer": 0})
    rows = read(path)
    assert [row.answer for row in rows] == ["42", "-0.5", "0"]
    assert rows[0].id == "7"


def test_a_missing_or_null_answer_is_none(path: Path) -> None:
    write(path, {"problem": "a"}, {"problem": "b", "answer": None})
    assert [(row.answer, row.solution) for row in read(path)] == [(None, None)] * 2


def test_fields_map_the_names_of_the_file(path: Path) -> None:
    write(path, {"uid": "x", "question": "1+1", "final": 2, "worked": "so", "problem": "not this", "id": "nor this"})
    fields = {"id": "uid", "problem": "question", "answer": "final", "solution": "worked"}
    assert read(path, fields) == [Row(id="x", problem="1+1", answer="2", solution="so")]


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), min_size=1))
def test_any_text_survives_line_separators_inside_strings_too(path: Path, problems: list[str]) -> None:
    write(path, *({"problem": problem} for problem in problems))
    assert [row.problem for row in read(path)] == problems


def test_a_unicode_line_separator_does_not_end_a_line(path: Path) -> None:
    write(path, {"problem": "one\u2028still one\u0085and still"})
    assert [row.problem for row in read(path)] == ["one\u2028still one\u0085and still"]


def test_windows_line_ends_are_line_ends(path: Path) -> None:
    path.write_bytes(b'{"problem": "a"}\r\n{"problem": "b"}\r\n')
    assert [row.problem for row in read(path)] == ["a", "b"]


def test_a_missing_file_is_named_with_its_key(path: Path) -> None:
    assert refusal(path) == f"data.path: {path} does not exist"
    assert refusal(path, key="data.held_out_path") == f"data.held_out_path: {path} does not exist"


@pytest.mark.parametrize("path", ["", " "])
def test_a_path_of_nothing_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=r"^data\.path: required: a file, a folder, or a name on the hub$"):
        load_rows(Source(path=path))


def test_a_folder_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["", "\n", " \n\t\n\n"], ids=["empty", "newline", "blank"])
def test_a_file_without_rows_is_empty(path: Path, content: str) -> None:
    path.write_text(content)
    assert "is empty; expected one JSON object per line, with 'problem'" in refusal(path)


def test_text_that_is_not_utf8_is_refused(path: Path) -> None:
    path.write_bytes('{"problem": "größer"}'.encode("latin-1"))
    text = refusal(path)
    assert "cannot be read" in text
    assert "utf-8" in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'problem': 1}", "not JSON (Expecting property name"),
        ('{"problem": "a"', "not JSON"),
        ('["a"]', "expected an object, got list"),
        ('"a"', "expected an object, got str"),
        ("null", "expected an object, got NoneType"),
        ('{"question": "a", "final": "b"}', "field 'problem' must be non-empty text; the line has 'question', "),
        ("{}", "the line has nothing (data.fields maps names)"),
        ('{"problem": " "}', "field 'problem' must be non-empty text"),
        ('{"problem": 3}', "field 'problem' must be non-empty text"),
        ('{"problem": "a", "answer": [["1"]]}', "field 'answer' must be text or a number, got list"),
        ('{"problem": "a", "answer": true}', "field 'answer' must be text or a number, got bool"),
        ('{"problem": "a", "solution": {}}', "field 'solution' must be text or a number, got dict"),
    ],
)
def test_a_bad_line_is_named_by_its_number_in_the_file(path: Path, line: str, message: str) -> None:
    path.write_text(f'{{"problem": "fine"}}\n\n{line}\n')
    text = refusal(path)
    assert text.startswith(f"data.path: {path}, line 3: ")
    assert message in text


def test_a_missing_field_names_all_that_the_line_has(path: Path) -> None:
    write(path, {"question": "a", "final": "b"})
    assert "the line has 'question', 'final' (data.fields maps names)" in refusal(path)


def test_a_bad_mapped_field_is_called_by_the_name_in_the_file(path: Path) -> None:
    write(path, {"problem": "a"})
    with pytest.raises(ConfigError, match=r"line 1: field 'question' must be non-empty text.*the line has 'problem'"):
        read(path, {"problem": "question"})


def test_two_rows_with_one_id_are_named_by_their_lines(path: Path) -> None:
    path.write_text('{"id": "x", "problem": "a"}\n\n{"id": "y", "problem": "b"}\n{"id": "x", "problem": "c"}\n')
    assert "lines 1 and 4 have the same id 'x'" in refusal(path)


def test_a_number_and_its_text_are_the_same_id(path: Path) -> None:
    write(path, {"id": 2, "problem": "a"}, {"problem": "b"})
    assert "lines 1 and 2 have the same id '2'" in refusal(path)


def test_a_mapped_field_that_no_line_has_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"q": "1+1", "result": "2"}\n')
    with pytest.raises(ConfigError, match=r"data.fields.answer: no line of .* has a field 'anwser'"):
        read(path, {"problem": "q", "answer": "anwser"})
    assert read(path, {"problem": "q", "answer": "result"})[0].answer == "2"


@pytest.mark.parametrize("field", ["id", "problem", "answer", "solution", "teacher"])
def test_half_a_surrogate_pair_is_refused_wherever_it_stands(tmp_path: Path, field: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"problem": "1+1", field: "a\ud800b"}) + "\n")
    with pytest.raises(ConfigError, match=f"line 1: field '{field}' holds half a surrogate pair"):
        read(path, optional=("answer", "solution", "teacher"))


@pytest.mark.parametrize("line", ["[" * 100_000, '{"problem": "1+1", "answer": ' + "9" * 5000 + "}"], ids=["deep", "long"])
def test_json_that_python_will_not_read_is_the_users_error(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ConfigError, match="line 1: "):
        read(path)


def test_fields_that_are_not_asked_for_are_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"problem": "1+1", "answer": "2", "teacher": {"name": "x"}}\n')
    assert read(path, {"teacher": "nowhere"})[0].teacher is None
    with pytest.raises(ConfigError, match="field 'teacher' must be text or a number, got dict"):
        read(path, optional=("teacher",))
