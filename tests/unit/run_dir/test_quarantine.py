"""The log of quarantined samples."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.run_dir.json_lines import complete_lines
from renio_pipeline.run_dir.quarantine import QuarantineLog


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_sample_is_quarantined_once_written_and_noted(tmp_path: Path) -> None:
    path, notes = tmp_path / "rejected.jsonl", list[str]()
    log = QuarantineLog(path, notes.append)
    assert not path.exists()
    log.add(7, "two workers died of it alone", "teacher", "row-3")
    log.add(7, "again", "generator", "row-3")
    log.add(8, "unpaired \ud800\nand a line", "generator", "row-4")
    assert log.ids == {7, 8}
    assert lines(path) == [
        {"sample_id": 7, "row": "row-3", "where": "teacher", "reason": "two workers died of it alone"},
        {"sample_id": 8, "row": "row-4", "where": "generator", "reason": "unpaired \ud800\nand a line"},
    ]
    assert notes[0] == "sample 7 (row row-3) is quarantined by pool teacher: two workers died of it alone"
    assert len(notes) == 2


def test_every_line_is_on_the_disk_when_add_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "rejected.jsonl", list[int]()
    fsync = os.fsync

    def spy(handle: int) -> None:
        synced.append(path.stat().st_size if os.fstat(handle).st_ino == path.stat().st_ino else 0)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    log = QuarantineLog(path, lambda _: None)
    for sample_id in (1, 2):
        log.add(sample_id, "", "", "")
        assert path.stat().st_size in synced
    assert 0 in synced, "the new file's name is not on the disk"


def test_a_run_that_goes_on_may_draw_it_again_and_does_not_write_it_twice(tmp_path: Path) -> None:
    path, notes = tmp_path / "rejected.jsonl", list[str]()
    QuarantineLog(path, notes.append).add(7, "the first reason", "teacher", "row-3")
    log = QuarantineLog(path, notes.append)
    assert log.ids == set()
    log.add(7, "another reason", "teacher", "row-3")
    log.add(9, "too long", "teacher", "row-5")
    assert log.ids == {7, 9}
    assert [(line["sample_id"], line["reason"]) for line in lines(path)] == [(7, "the first reason"), (9, "too long")]
    assert len(notes) == 3


@pytest.mark.parametrize("torn", ['{"sample_id": 8, "ro', '{"sample_id": 8}', "\u00e9"[:1]])
@pytest.mark.parametrize("before", ["", '{"sample_id": 7}\n'])
def test_a_line_that_a_kill_tore_is_dropped_before_the_next_is_written(tmp_path: Path, before: str, torn: str) -> None:
    path = tmp_path / "rejected.jsonl"
    path.write_text(before + torn)
    log = QuarantineLog(path, lambda _: None)
    log.add(8, "", "", "")
    assert [line["sample_id"] for line in complete_lines(path)] == ([7] if before else []) + [8]


def test_without_a_file_it_only_notes() -> None:
    notes: list[str] = []
    log = QuarantineLog(None, notes.append)
    log.add(1, "no room", "generator", "r")
    log.add(1, "no room", "generator", "r")
    assert (log.ids, len(notes)) == ({1}, 1)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(runs=st.lists(st.lists(st.integers(0, 5), max_size=8), max_size=4))
def test_over_any_number_of_incarnations_there_is_one_line_a_sample(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[int]]
) -> None:
    path = tmp_path_factory.mktemp("run") / "rejected.jsonl"
    for ids in runs:
        log = QuarantineLog(path, lambda _: None)
        for sample_id in ids:
            log.add(sample_id, "", "", "")
        assert log.ids == set(ids)
    assert [line["sample_id"] for line in complete_lines(path)] == list(dict.fromkeys(i for ids in runs for i in ids))
