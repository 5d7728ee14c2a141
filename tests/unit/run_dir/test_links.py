"""Symbolic links in a run's directory: nothing is written through them, and nothing is published through them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.metrics.sink import JsonlSink
from renio_pipeline.publish import source
from renio_pipeline.run_dir.checkpoint_files import write_durably
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.run_dir.json_lines import pack
from renio_pipeline.run_dir.ledger_files import record_trained
from renio_pipeline.run_dir.run_log import RunLog
from renio_pipeline.types import Evaluation
from tests.unit.conftest import make_config
from tests.unit.recorded_runs import sample

SECRET = "a file of the user's own\n"
EVALUATION = Evaluation(problems=1, accuracy=1.0, low=0.0, high=1.0, response_tokens=1.0)
WRITES: dict[str, Callable[[RunDirectory], object]] = {
    "metrics.jsonl": lambda d: JsonlSink(d.metrics).write(1, {"loss": 1.0}),
    "evaluations.jsonl": lambda d: d.write_evaluation(1, EVALUATION),
    "samples/step_000001.jsonl": lambda d: d.write_samples(1, [sample(1)]),
    "batches.jsonl": lambda d: d.write_samples(1, [sample(1)]),
    "result.json": lambda d: d.write_result({}),
    ".report.html.aside": lambda d: write_durably(d.path / "report.html", "<html>"),
    "ledger/rank_0.jsonl": lambda d: record_trained(d.path / "ledger", 0, step=1, incarnation=0, sample_ids=[1]),
}


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(make_config(run_dir=str(tmp_path / "run")))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own"
    file.write_text(SECRET)
    return file


@pytest.mark.parametrize("name", WRITES)
def test_nothing_is_written_through_a_link(directory: RunDirectory, own: Path, name: str) -> None:
    (directory.path / name).symlink_to(own)
    with pytest.raises(OSError, match=r"symbolic links|Too many levels"):
        WRITES[name](directory)
    assert own.read_text() == SECRET
    (directory.path / name).unlink()
    WRITES[name](directory)
    assert own.read_text() == SECRET


def test_the_log_leaves_what_a_link_leads_to_alone(directory: RunDirectory, own: Path) -> None:
    (directory.path / "log.txt").symlink_to(own)
    RunLog(directory.path / "log.txt").note("a note")
    assert own.read_text() == SECRET


def test_a_file_that_is_replaced_takes_the_link_s_place(directory: RunDirectory, own: Path) -> None:
    page = directory.path / "report.html"
    page.symlink_to(own)
    write_durably(page, "<html>")
    assert (page.read_text(), page.is_symlink(), own.read_text()) == ("<html>", False, SECRET)


def test_packing_reads_and_replaces_the_link_alone(directory: RunDirectory, own: Path) -> None:
    link = directory.path / "samples/step_000001.jsonl"
    link.symlink_to(own)
    pack(link)
    assert own.read_text() == SECRET
    assert [path.name for path in (directory.path / "samples").iterdir()] == ["step_000001.jsonl.zst"]


@pytest.mark.parametrize("place", ["vocab.txt", "extra/key"])
def test_a_link_in_a_checkpoint_is_not_published(tmp_path: Path, own: Path, place: str) -> None:
    folder = tmp_path / "hf"
    (folder / place).parent.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    source._check_no_links(folder)
    (folder / place).symlink_to(own)
    with pytest.raises(ConfigError, match=re.escape(f"RUN: {folder / place} is a symbolic link")):
        source._check_no_links(folder)
