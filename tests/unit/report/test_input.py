"""What ``renio report`` reads, chooses, and refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renio_pipeline import cli
from renio_pipeline.config import ConfigError
from renio_pipeline.report.choice import fitting, parse_steps, spread
from renio_pipeline.report.recorded import read_runs
from renio_pipeline.report.samples import read_samples
from tests.unit.recorded_runs import record, sample
from tests.unit.report.test_report import data_of


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    folders = [record(tmp_path / "a/run"), record(tmp_path / "b/run")]
    assert [run.label for run in read_runs(folders)] == [str(folder) for folder in folders]


def test_more_tokens_than_a_page_bears_are_left_out_and_the_page_says_so(tmp_path: Path) -> None:
    folder = record(tmp_path / "run", {step: [sample(4 * step + i) for i in range(4)] for step in range(1, 11)})
    (run,) = read_runs([folder])
    of_a_step = 4 * len(sample(0)["token_ids"])
    found = read_samples(run, (), 4 * of_a_step)
    assert [entry["step"] for entry in found.reader["steps"]] == [1, 4, 7, 10]
    assert found.notes == ["The reader shows the samples of 4 of 10 steps; --steps chooses others."]
    assert [w.step for w in found.weights] == list(range(1, 11))
    tight = read_samples(run, (), of_a_step)
    assert [entry["step"] for entry in tight.reader["steps"]] == [1, 10]
    assert [len(entry["sample"]) for entry in tight.reader["steps"]] == [2, 2]
    assert "4 samples of these steps are left out" in tight.notes[1]
    chosen = read_samples(run, [3, 5], 10**6)
    assert [entry["step"] for entry in chosen.reader["steps"]] == [3, 5]


@given(st.integers(1, 60), st.integers(1, 70))
def test_a_spread_has_both_ends_and_no_gap_much_wider_than_another(items: int, count: int) -> None:
    found = spread(range(items), count)
    assert len(set(found)) == len(found) == min(items, count)
    assert found == sorted(found)
    if count > 1:
        assert (found[0], found[-1]) == (0, items - 1)
        gaps = np.diff(found)
        assert not len(gaps) or gaps.max() - gaps.min() <= 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(0, 400), st.integers(1, 3))
def test_what_is_chosen_fits_unless_it_is_the_least_that_must_be(sizes: list[int], room: int, least: int) -> None:
    found = fitting(range(len(sizes)), sizes, room, least)
    assert len(found) >= min(least, len(sizes))
    assert len(found) <= least or sum(sizes[i] for i in found) <= room


@pytest.mark.parametrize(("given", "steps"), [("3", [3]), ("1, 10,4-6", [1, 4, 5, 6, 10]), ("2-2,2", [2])])
def test_steps_are_numbers_and_ranges(given: str, steps: list[int]) -> None:
    assert parse_steps(given) == steps


@pytest.mark.parametrize("given", ["", "a", "1,", "3-1", "0", "-3", "1-2-3", "1.5", "²", "1-99999999"])
def test_steps_that_are_none_are_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="--steps: "):
        parse_steps(given)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert cli.main(["report", *map(str, arguments)]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    return written.err.removeprefix("error: ")


def test_what_is_no_run_is_refused_by_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist" in refused(capsys, tmp_path / "gone")
    assert "it has no config.yaml" in refused(capsys, tmp_path)
    (tmp_path / "file").touch()
    assert "is a file" in refused(capsys, tmp_path / "file")
    assert "has no step yet" in refused(capsys, record(tmp_path / "new", {}))
    folder = record(tmp_path / "run")
    assert "is given twice" in refused(capsys, folder, tmp_path / "run/../run", "--out", tmp_path / "x.html")
    assert "--out: required with several runs" in refused(capsys, folder, tmp_path / "new")
    assert "ends in .html" in refused(capsys, folder, "--out", tmp_path / "page.png")
    assert "does not exist" in refused(capsys, folder, "--out", tmp_path / "gone/page.html")
    assert "no samples of step 9" in refused(capsys, folder, "--steps", "2,9")
    assert not list(tmp_path.rglob("*.html"))


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples/step_000002.jsonl", "evaluations.jsonl"])
def test_a_damaged_file_is_named_and_leaves_the_page_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = record(tmp_path / "run")
    (folder / "report.html").write_text("as it was")
    damaged = (folder / name).read_text().splitlines(keepends=True)
    (folder / name).write_text("".join([damaged[0], "{]\n", *damaged[1:]]))
    assert f"{folder / name} is damaged after line 1" in refused(capsys, folder)
    assert (folder / "report.html").read_text() == "as it was"


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = record(tmp_path / "run")
    assert cli.main(["report", str(folder), "--steps", "2", "--out", str(tmp_path / "two.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'two.html'}\n"
    assert [entry["step"] for entry in data_of(tmp_path / "two.html")["runs"][0]["reader"]["steps"]] == [2]
