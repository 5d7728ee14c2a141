"""The recorded analyses: what was written is read, whatever happened to the process that wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from renio_pipeline.run_dir.analyses import AnalysisLog
from renio_pipeline.run_dir.fence import Fence, LeaseLostError

TEXTS = {"a": "First.\nSecond ½ \ud800.", "b": "", "c": "x" * 5000}


def records(*keys: str) -> list[dict[str, object]]:
    return [{"key": key, "text": TEXTS[key], "row": "0"} for key in keys]


def test_texts_are_those_that_were_added_also_for_the_next_process(tmp_path: Path) -> None:
    log = AnalysisLog(tmp_path / "analyses.jsonl")
    log.add(records("a", "b"))
    log.add(records("c"))
    for each in (log, AnalysisLog(tmp_path / "analyses.jsonl")):
        assert {key: each.get(key) for key in TEXTS} == TEXTS
        assert each.get("d") is None
        assert len(each) == 3


def test_a_line_that_was_cut_is_dropped_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "analyses.jsonl"
    AnalysisLog(path).add(records("a", "c"))
    path.write_bytes(path.read_bytes()[:-100])
    log = AnalysisLog(path)
    assert (log.get("a"), log.get("c")) == (TEXTS["a"], None)
    log.add(records("c", "b"))
    assert {key: AnalysisLog(path).get(key) for key in TEXTS} == TEXTS


def test_the_first_record_of_a_key_counts(tmp_path: Path) -> None:
    log = AnalysisLog(tmp_path / "analyses.jsonl")
    log.add(records("a"))
    (tmp_path / "analyses.jsonl").open("a").write('{"key": "a", "text": "another"}\n')
    assert AnalysisLog(tmp_path / "analyses.jsonl").get("a") == TEXTS["a"]


def test_without_a_file_they_are_kept_in_memory() -> None:
    log = AnalysisLog(None)
    log.add(records("a"))
    assert (log.get("a"), log.get("b"), len(log)) == (TEXTS["a"], None, 1)


def test_a_driver_that_lost_its_lease_writes_none(tmp_path: Path) -> None:
    lease = tmp_path / "lease"
    lease.write_text("mine")
    log = AnalysisLog(tmp_path / "analyses.jsonl", Fence(str(lease), "mine"))
    lease.write_text("another's")
    with pytest.raises(LeaseLostError):
        log.add(records("a"))
    assert not (tmp_path / "analyses.jsonl").exists()
