"""One value has one text, whichever kind of file it comes from: no reader makes dates of text, or floats of integers."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from renio_pipeline.config import ConfigError
from renio_pipeline.config.schema import Source
from renio_pipeline.data.files import json_files
from renio_pipeline.data.sources import load_rows
from renio_pipeline.data.values import text_of

for_all = settings(
    deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


Records = Sequence[dict[str, Any]]


def lines(folder: Path, records: Records) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(_json(record) + "\n" for record in records), encoding="utf-8")
    return path


def array(folder: Path, records: Records) -> Path:
    path = folder / "rows.json"
    path.write_text("[\n  " + ",\n  ".join(map(_json, records)) + "\n]\n", encoding="utf-8")
    return path


def _json(record: dict[str, Any]) -> str:
    """As a JSON writer with decimals writes it."""
    held = {key: value for key, value in record.items() if isinstance(value, Decimal)}
    text = json.dumps(record | {key: f"<{key}>" for key in held}, ensure_ascii=False)
    for key, value in held.items():
        text = text.replace(f'"<{key}>"', str(value))
    return text


def cells(folder: Path, records: Records) -> Path:
    path = folder / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return path


def parquet(folder: Path, records: Records) -> Path:
    path = folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(list(records)), path)
    return path


def in_folder(write: Callable[[Path, Records], Path]) -> Callable[[Path, Records], Path]:
    def written(folder: Path, records: Records) -> Path:
        (folder / "data").mkdir()
        write(folder / "data", records)
        return folder / "data"

    written.__name__ = f"folder of {write.__name__}"
    return written


KINDS = [lines, array, cells, parquet, *map(in_folder, (lines, array, cells, parquet))]
CASES: dict[str, tuple[list[Any], list[str | None]]] = {
    "dates": (["2024-01-02", "1999-12-31"], ["2024-01-02", "1999-12-31"]),
    "times": (["2024-01-02 03:04:05", "2024-01-02T03:04:05Z"], ["2024-01-02 03:04:05", "2024-01-02T03:04:05Z"]),
    "months": (["Jan 2024", "01/02/2024"], ["Jan 2024", "01/02/2024"]),
    "leading zeros": (["007", "0", "00"], ["007", "0", "00"]),
    "text that looks like a number": (["1e3", "1_000", "0x10"], ["1e3", "1_000", "0x10"]),
    "text that looks like a truth value": (["True", "no", "null"], ["True", "no", "null"]),
    "integers": ([7, -9, 0], ["7", "-9", "0"]),
    "long integers": ([2**63 - 1, 9007199254740993], ["9223372036854775807", "9007199254740993"]),
    "an integer beside a float": ([7, 2.5], ["7", "2.5"]),
    "an integer beside a hole": ([7, None, 9], ["7", None, "9"]),
    "floats that are integers": ([7.0, 9.0], ["7", "9"]),
    "floats that are integers, beside a hole": ([7.0, None], ["7", None]),
    "a number that is none": ([7.0, math.nan], ["7", None]),
    "small and large": ([0.00001, 1.5e-30, 0.1], ["0.00001", "1.5e-30", "0.1"]),
    "decimals": ([Decimal("2.5"), Decimal("-0.125")], ["2.5", "-0.125"]),
}


def read(path: Path) -> list[str | None]:
    return [row.answer for row in load_rows(Source(path=str(path)))]


@pytest.mark.parametrize("write", KINDS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_file_gives_one_value_the_same_text(
    case: str, write: Callable[[Path, Records], Path], tmp_path: Path
) -> None:
    given, wanted = CASES[case]
    if "cells" in write.__name__ and case == "small and large":
        wanted = ["1e-05", "1.5e-30", "0.1"]  # a cell is text, as it stands
    path = write(tmp_path, [{"problem": f"p{i}", "answer": value} for i, value in enumerate(given)])
    assert read(path) == wanted


PANDAS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    "rows.jsonl": lambda table, path: table.to_json(path, orient="records", lines=True),
    "rows.json": lambda table, path: table.to_json(path, orient="records"),
    "rows.csv": lambda table, path: table.to_csv(path),
    "rows.parquet": lambda table, path: table.to_parquet(path),
}


@pytest.mark.parametrize("name", PANDAS)
def test_a_hole_in_a_table_of_pandas_does_not_change_the_integers_around_it(name: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"id": [1, None, 3], "problem": ["a", "b", "c"], "answer": [7, None, 2_000_000]})
    assert str(table.answer.dtype) == "float64"
    PANDAS[name](table, tmp_path / name)
    rows = list(load_rows(Source(path=str(tmp_path / name))))
    assert [row.answer for row in rows] == ["7", None, "2000000"]
    assert [row.id for row in rows] == ["1", "2", "3"]


def test_integers_and_decimals_of_any_size_keep_their_digits(tmp_path: Path) -> None:
    numbers = ["9" * 30, "-" + "8" * 400, "3.14159265358979323846264338327950288", "0." + "0" * 10 + "1"]
    for name, text in (
        ("rows.jsonl", "".join(f'{{"problem": "p", "answer": {n}}}\n' for n in numbers)),
        ("rows.json", "[" + ", ".join(f'{{"problem": "p", "answer": {n}}}' for n in numbers) + "]"),
        ("rows.csv", "problem,answer\n" + "".join(f"p,{n}\n" for n in numbers)),
    ):
        (tmp_path / name).write_text(text)
        assert read(tmp_path / name) == numbers
    exact = [Decimal("123456789012345678901234567890.12"), Decimal("7.00")]
    assert read(parquet(tmp_path, [{"problem": "p", "answer": n} for n in exact])) == ["123456789012345678901234567890.12", "7"]


def test_single_precision_has_the_digits_that_were_written(tmp_path: Path) -> None:
    table = pa.table({"problem": ["a", "b", "c"], "answer": pa.array([0.1, None, 16777216.0], pa.float32())})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet") == ["0.1", None, "16777216"]


@for_all
@given(
    st.one_of(
        st.integers(), st.decimals(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False)
    )
)
def test_the_text_of_a_number_is_that_number_in_its_shortest_form(value: Any) -> None:
    text = text_of(value)
    assert text is not None
    exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    assert Decimal(text) == exact
    mantissa = text.partition("e")[0]
    assert not (mantissa.endswith("0") and "." in mantissa)
    assert not mantissa.endswith(".")
    assert text != "-0"


@pytest.mark.parametrize("write", [lines, array, cells, parquet], ids=lambda write: write.__name__)
@pytest.mark.parametrize("value", [math.inf, Decimal("-Infinity")])
def test_infinity_is_no_answer(write: Callable[[Path, Records], Path], value: Any, tmp_path: Path) -> None:
    if write in (lines, array, parquet):
        value = float(value)
    if write is cells:
        return  # a word, as any other
    with pytest.raises(ConfigError, match=r"row 2|line 2.*field 'answer' must be text or a number, got -?Infinity"):
        read(write(tmp_path, [{"problem": "a", "answer": 1.0}, {"problem": "b", "answer": value}]))


def test_a_tables_own_dates_are_written_as_dates_and_its_times_are_refused(tmp_path: Path) -> None:
    assert read(parquet(tmp_path, [{"problem": "a", "answer": date(2024, 1, 2)}])) == ["2024-01-02"]
    with pytest.raises(ConfigError, match="row 1: field 'answer' must be text or a number, got datetime; write it as text"):
        read(parquet(tmp_path, [{"problem": "a", "answer": datetime(2024, 1, 2)}]))


def test_a_column_of_numbers_that_are_none_is_no_column_of_answers(tmp_path: Path) -> None:
    path = lines(tmp_path, [{"problem": "a", "gold": math.nan}, {"problem": "b", "gold": math.nan}])
    with pytest.raises(ConfigError, match=r"data\.fields\.answer: no line of .* has a field 'gold'"):
        load_rows(Source(path=str(path), fields={"answer": "gold"}))


@pytest.mark.parametrize("field", ["id", "answer", "solution"])
@pytest.mark.parametrize("value", [True, ["1"], {"a": 1}])
def test_what_is_neither_text_nor_a_number_is_refused_by_its_kind(field: str, value: Any, tmp_path: Path) -> None:
    if (field, value) == ("answer", ["1"]):
        value = [["1"]]  # a list of answers is allowed, and none of lists
    for write in (lines, array, parquet):
        path = write(tmp_path, [{"problem": "a", field: value}])
        with pytest.raises(ConfigError, match=f"field '{field}' must be text or a number, got {type(value).__name__}"):
            read(path)


def test_tests_keep_their_numbers(tmp_path: Path) -> None:
    record = '{"problem": "p", "tests": {"inputs": [[1, 2.50, 1.0, 100000000000000000000]], "outputs": [null]}}'
    (tmp_path / "rows.jsonl").write_text(record)
    (tmp_path / "rows.json").write_text(f"[{record}]")
    for name in ("rows.jsonl", "rows.json"):
        (row,) = load_rows(Source(path=str(tmp_path / name)))
        assert row.tests == '{"inputs": [[1, 2.5, 1.0, 100000000000000000000]], "outputs": [null]}'


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)


@for_all
@given(st.lists(st.tuples(texts, texts | st.integers() | st.none()), min_size=1, max_size=6), st.integers(1, 40))
def test_an_array_is_read_as_the_same_lines_are_however_its_blocks_fall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[tuple[str, Any]], block: int
) -> None:
    monkeypatch.setattr(json_files, "BLOCK", block)
    records = [{"problem": problem, "answer": answer, "more": [{"a": "]"}, 1.5e3]} for problem, answer in given]
    found = list(load_rows(Source(path=str(array(tmp_path, records)))))
    assert found == list(load_rows(Source(path=str(lines(tmp_path, records)))))
    assert [row.problem for row in found] == [problem for problem, _ in given]


@for_all
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6))
def test_any_text_survives_a_csv_file_and_lines_in_cells_too(tmp_path: Path, given: list[tuple[str, str]]) -> None:
    records = [{"id": f"#{i}", "problem": problem, "answer": f"<{answer}>"} for i, (problem, answer) in enumerate(given)]
    found = load_rows(Source(path=str(cells(tmp_path, records))))
    assert [(row.problem, row.answer) for row in found] == [(r["problem"], r["answer"]) for r in records]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"problem": "a"}, {"problem": "b"', "row 2: not JSON"),
        ('[{"problem": "a"} {"problem": "b"}]', "row 1: not JSON: expected ',' or ']' after this row, got '{'"),
        ('[{"problem": "a"},]', "row 2: not JSON (Expecting value)"),
        ('[{"problem": "a"}] []', "row 1: not JSON: more text follows the end of the array"),
        ('[{"problem": "a"}, {"problem": "b\\x"}]', "row 2: not JSON (Invalid \\escape"),
        ('[{"problem": "a"}, 7]', "row 2: expected an object, got int"),
        ("[]", " is empty; expected rows with 'problem'"),
        ('[{"problem": "a", "answer": 1e99999999999999999999}]', "row 1: cannot be read"),
        ('[{"problem": "a"}, ' + "[" * 99999, "row 2: cannot be read"),
    ],
)
def test_a_bad_array_is_refused_with_its_row(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "rows.json")
    assert str(caught.value).startswith(f"data.path: {tmp_path / 'rows.json'}")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("problem,answer\na,1\nb\n", ", row 2: has 1 cells, and the header has 2"),
        ("problem,problem\na,1\n", ": the header has 'problem' twice"),
        ('problem,answer\n"a,1\n', ", row 1: cannot be read: unexpected end of data"),
        ("problem;answer\na;1\n", ", row 1: field 'problem' must be non-empty text; the row has 'problem;answer'"),
        ("problem,answer\n", " is empty; expected rows with 'problem'"),
    ],
)
def test_a_bad_csv_file_is_refused_with_its_row(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "rows.csv")
    assert str(caught.value).startswith(f"data.path: {tmp_path / 'rows.csv'}{says}")


def test_text_that_is_not_utf8_is_refused_in_every_kind_of_text_file(tmp_path: Path) -> None:
    bad = "größer".encode("latin-1")
    for name, data in (("a.json", b'[{"problem": "' + bad + b'"}]'), ("a.csv", b"problem\n" + bad + b"\n")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ConfigError, match=r"a\.\w+(, row 1)?: cannot be read: 'utf-8' codec"):
            read(tmp_path / name)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    for name, text in (("a.jsonl", '{"problem": "p"}\n'), ("a.json", '[{"problem": "p"}]'), ("a.csv", "problem\np\n")):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        (row,) = load_rows(Source(path=str(tmp_path / name)))
        assert row.problem == "p"


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]


@pytest.mark.parametrize("write", [lines, array, cells, parquet], ids=lambda write: write.__name__)
def test_a_list_of_messages_is_said_to_be_one_with_what_to_do(write: Callable[[Path, Records], Path], tmp_path: Path) -> None:
    for field, index in (("answer", 2), ("solution", 2)):
        path = write(tmp_path, [{"problem": "p"} | {field: CHAT}])
        with pytest.raises(ConfigError) as caught:
            read(path)
        text = str(caught.value)
        assert f" 1: field '{field}' is a list of messages (of system, user, assistant), and {field} must be text" in text
        assert f"such as {field}[{index}]['content'], into a field of its own (data.fields.{field} names it)" in text


@pytest.mark.parametrize("write", [lines, array, parquet], ids=lambda write: write.__name__)
def test_a_record_without_a_problem_is_told_of_its_messages(write: Callable[[Path, Records], Path], tmp_path: Path) -> None:
    theirs = [{"from": "human", "value": "1+1"}, {"from": "gpt", "value": "2"}, {"from": "human", "value": "2+2"}]
    with pytest.raises(ConfigError) as caught:
        read(write(tmp_path, [{"conversations": theirs}]))
    told = "'conversations' (data.fields maps names); 'conversations' is a list of messages: data.fields.problem=conversations"
    assert told in str(caught.value)


@pytest.mark.parametrize("problem", ["[{'a': 1}]", '[{"role": "x"}]', "[{", "[{'role': 'user', 'content': f(1)}]", "[1, 2]"])
def test_text_that_only_begins_like_messages_is_text(problem: str, tmp_path: Path) -> None:
    (row,) = load_rows(Source(path=str(lines(tmp_path, [{"problem": problem}]))))
    assert row.problem == problem


def test_a_git_lfs_pointer_in_the_place_of_data_is_called_one(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 123456\n"
    (tmp_path / "data").mkdir()
    for name in ("a.jsonl", "a.json", "a.csv", "a.parquet"):
        (tmp_path / name).write_text(pointer)
        (tmp_path / "data" / name).write_text(pointer)
        for path in (tmp_path / name, tmp_path / "data"):
            with pytest.raises(ConfigError, match=r"data\.path: .*a\.\w+ is a Git LFS pointer, and the file of 123456 bytes"):
                read(path)
        (tmp_path / "data" / name).unlink()
    datasets.Dataset.from_list([{"problem": "a"}]).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "data-00000-of-00001.arrow").write_text(pointer)
    with pytest.raises(ConfigError, match=r"data-00000-of-00001\.arrow is a Git LFS pointer"):
        read(tmp_path / "saved")


@pytest.mark.parametrize("name", ["rows.json", "rows.csv"])
def test_memory_does_not_grow_with_an_array_or_a_csv_file(name: str, tmp_path: Path) -> None:
    import tracemalloc

    records = [{"problem": f"{n} " + "x" * 9000, "solution": "y" * 9000} for n in range(1200)]
    path = (array if name == "rows.json" else cells)(tmp_path, records)
    tracemalloc.start()
    try:
        rows = load_rows(Source(path=str(path)))
        assert rows[1199].problem.startswith("1199 ")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 20e6
    assert peak < 6e6
