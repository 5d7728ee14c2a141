"""Parquet, JSON, folders and the hub: the same rows, and errors that say which row or key."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.config.schema import Source
from renio_pipeline.data.problems import problems_of
from renio_pipeline.data.rows import Rows
from renio_pipeline.data.sources import HELD_OUT, load_rows
from renio_pipeline.tasks import make_task
from renio_pipeline.types import Row
from tests.unit.conftest import make_config

RECORDS = [
    {"problem": f"What is {n} + {n}?", "solution": f"{n} + {n} = {2 * n}", "Answer": str(2 * n), "theirs": n} for n in range(7)
]
WANTED = [
    Row(id=str(n + 1), problem=f"What is {n} + {n}?", answer=str(2 * n), solution=f"{n} + {n} = {2 * n}") for n in range(7)
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test leaves anything in the user's cache, or asks the network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def table() -> datasets.Dataset:
    return datasets.Dataset.from_list(RECORDS)


def load(path: Path | str, **keys: Any) -> Rows:
    return load_rows(Source(path=str(path), **{"preset": "openthoughts-maths", **keys}))


def refusal(path: Path | str, **keys: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, **keys)
    return str(caught.value)


def jsonl(folder: Path, table: datasets.Dataset) -> Path:
    (folder / "rows.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return folder / "rows.jsonl"


def lines_named_json(folder: Path, table: datasets.Dataset) -> Path:
    return jsonl(folder, table).rename(folder / "rows.json")


def array(folder: Path, table: datasets.Dataset) -> Path:
    (folder / "rows.json").write_text(json.dumps(RECORDS))
    return folder / "rows.json"


def csv_file(folder: Path, table: datasets.Dataset) -> Path:
    table.to_csv(folder / "rows.csv")
    return folder / "rows.csv"


def tsv_with_a_mark(folder: Path, table: datasets.Dataset) -> Path:
    (folder / "rows.tsv").write_text(table.to_pandas().to_csv(sep="\t", index=False), encoding="utf-8-sig")
    return folder / "rows.tsv"


def parquet(folder: Path, table: datasets.Dataset) -> Path:
    table.to_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def saved(folder: Path, table: datasets.Dataset) -> Path:
    table.save_to_disk(folder / "saved")
    return folder / "saved"


def saved_with_splits(folder: Path, table: datasets.Dataset) -> Path:
    datasets.DatasetDict(train=table, test=table.select(range(2))).save_to_disk(folder / "splits")
    return folder / "splits"


def hub_layout(folder: Path, table: datasets.Dataset) -> Path:
    (folder / "hub" / "data").mkdir(parents=True)
    for part in range(2):
        table.shard(2, part, contiguous=True).to_parquet(folder / "hub" / "data" / f"train-0000{part}-of-00002.parquet")
    table.select(range(2)).to_parquet(folder / "hub" / "data" / "test-00000-of-00001.parquet")
    return folder / "hub"


def folder_of_parts(folder: Path, table: datasets.Dataset) -> Path:
    """A folder of JSON files, one of them packed, whose rows are numbered throughout."""
    (folder / "parts").mkdir()
    (folder / "parts" / "train-0.json").write_text(json.dumps(RECORDS[:3]))
    with gzip.open(folder / "parts" / "train-1.jsonl.gz", "wt") as packed:
        packed.writelines(json.dumps(record) + "\n" for record in RECORDS[3:])
    return folder / "parts"


def folder_of_csv(folder: Path, table: datasets.Dataset) -> Path:
    (folder / "cells").mkdir()
    return csv_file(folder / "cells", table).parent


def folder_of_lines(folder: Path, table: datasets.Dataset) -> Path:
    (folder / "lines").mkdir()
    return jsonl(folder / "lines", table).parent


KINDS = [
    jsonl, lines_named_json, array, csv_file, tsv_with_a_mark, parquet, saved, saved_with_splits, hub_layout, folder_of_lines,
    folder_of_parts, folder_of_csv,
]  # fmt: skip


@pytest.mark.parametrize("write", KINDS)
def test_every_kind_of_source_gives_the_same_rows(write: Any, tmp_path: Path, table: datasets.Dataset) -> None:
    rows = load(write(tmp_path, table))
    assert list(rows) == WANTED
    assert [row.line for row in rows] == list(range(1, 8))
    assert (rows[-1], rows[2:6:2], rows[:0]) == (WANTED[6], [WANTED[2], WANTED[4]], [])
    with pytest.raises(IndexError):
        rows[7]


@pytest.mark.parametrize("write", [saved_with_splits, hub_layout])
def test_a_split_is_chosen_by_its_name(write: Any, tmp_path: Path, table: datasets.Dataset) -> None:
    path = write(tmp_path, table)
    assert list(load(path, split="test")) == WANTED[:2]
    said = refusal(path, split="dev")
    assert "train" in said
    assert "test" in said


@pytest.mark.parametrize("write", [jsonl, parquet])
def test_one_file_has_no_splits(write: Any, tmp_path: Path, table: datasets.Dataset) -> None:
    path = write(tmp_path, table)
    assert refusal(path, split="test") == f"data.split: {path} is a single file and has no splits; leave data.split out"
    assert refusal(path, subset="main").startswith("data.subset: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem": ""}, "row 3: field 'problem' must be non-empty text; the row has 'problem', 'Answer', 'solution'"),
        ({"problem": None}, "row 3: field 'problem' must be non-empty text"),
        ({"solution": ["a"]}, "row 3: field 'solution' must be text or a number, got list"),
    ],
)
def test_a_bad_row_of_a_table_is_named_by_its_number(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    records: list[dict[str, Any]] = [dict(record) for record in RECORDS]
    if isinstance(change.get("solution"), list):
        records = [{**record, "solution": None} for record in records]
    records[2] |= change
    datasets.Dataset.from_list(records).to_parquet(tmp_path / "rows.parquet")
    assert refusal(tmp_path / "rows.parquet").startswith(f"data.path: {tmp_path / 'rows.parquet'}, {message}")


def test_a_table_without_the_mapped_column_says_which_there_are(tmp_path: Path, table: datasets.Dataset) -> None:
    path = parquet(tmp_path, table)
    assert refusal(path, fields={"problem": "question"}) == (
        f"data.path: {path}, row 1: no field 'question'; there are 'problem', 'solution', 'Answer', 'theirs' "
        "(data.fields maps names)"
    )
    assert refusal(path, fields={"answer": "final"}) == f"data.fields.answer: no row of {path} has a field 'final'"


def test_a_presets_field_that_is_not_there_is_told_by_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"problem": "1+1", "solution": "2", "answer": "2"}\n')
    assert refusal(path).startswith("data.fields.answer (of preset openthoughts-maths): no line of ")
    assert load(path, fields={"answer": "answer"})[0].answer == "2"


def test_code_problems_carry_their_tests_as_text(tmp_path: Path) -> None:
    tests = json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]})
    datasets.Dataset.from_list([{"problem": "double", "ground_truth_solution": "print(2)", "test_cases": tests}]).to_parquet(
        tmp_path / "rows.parquet"
    )
    (row,) = load(tmp_path / "rows.parquet", preset="openthoughts-code")
    assert row == Row(id="1", problem="double", solution="print(2)", tests=tests)


def test_tests_that_are_an_object_become_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"problem": "double", "tests": {"inputs": ["1"], "outputs": ["2"]}}\n{"problem": "x", "tests": "assert x"}\n'
    )
    first, second = load_rows(Source(path=str(path)))
    assert json.loads(str(first.tests)) == {"inputs": ["1"], "outputs": ["2"]}
    assert second.tests == "assert x"


def test_two_rows_of_a_table_with_one_id_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    datasets.Dataset.from_list(
        [{"id": "x", "problem": "a"}, {"id": "y", "problem": "b"}, {"id": "x", "problem": "c"}]
    ).to_parquet(path)
    assert refusal(path, preset=None).endswith("rows 1 and 3 have the same id 'x'")


def test_a_hub_name_that_cannot_be_asked_for_is_told_from_a_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refusal("nobody-here/no-such-data")
    assert said.startswith(
        "data.path: nobody-here/no-such-data is not a local file or folder, and the hub could not be reached"
    )
    for missing in ("nobody-here/rows.jsonl", "rows.parquet", "./folder", "a/b/c"):
        assert refusal(missing) == f"data.path: {missing} does not exist"


@pytest.mark.parametrize(("name", "says"), [("rows.parquet", " cannot be read: "), ("rows.json", ", row 1: not JSON")])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / name).write_text("[this is neither")
    assert refusal(tmp_path / name).startswith(f"data.path: {tmp_path / name}{says}")


def test_errors_name_the_key_they_were_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^suite\.path: required"):
        load_rows(Source(), key="suite.path", optional=HELD_OUT)
    (tmp_path / "rows.jsonl").write_text('{"problem": "a"}\n')
    with pytest.raises(ConfigError, match=r"^suite\.fields\.answer: no line of"):
        load_rows(Source(path=str(tmp_path / "rows.jsonl"), fields={"answer": "gold"}), key="suite.path")


def test_the_held_out_problems_may_be_another_split_of_the_same_folder(tmp_path: Path, table: datasets.Dataset) -> None:
    path = str(saved_with_splits(tmp_path, table))
    data = {"path": path, "held_out_path": path, "held_out_split": "test", "preset": "openthoughts-maths"}
    config = make_config(task="plain", data=data, evaluate={"problems": 10})
    training, held_out = problems_of(config, make_task("plain"))
    assert (list(training.rows), [row.answer for row in held_out.rows]) == (WANTED, ["0", "2"])
    assert training.notes == (
        "warning: 2 of 7 training problems are also held out, so the held-out accuracy is less meaningful; "
        f"first: {path}, row 1; {path}, row 2",
    )


def test_a_file_that_changed_under_a_run_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"problem": "a"}\n{"problem": "b"}\n')
    rows = load_rows(Source(path=str(path)))
    path.write_text('{"question": "longer than it was"}\n')
    with pytest.raises(ConfigError, match="line 2: not JSON"):
        rows[1]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for n in range(3000):
            file.write(json.dumps({"problem": f"{n} " + "x" * 10_000, "solution": "y" * 10_000}) + "\n")
    tracemalloc.start()
    try:
        rows = load_rows(Source(path=str(path)))
        assert rows[2999].problem.startswith("2999 ")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 60e6
    assert held < 1e6
