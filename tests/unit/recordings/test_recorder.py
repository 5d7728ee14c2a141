"""What is recorded is recorded exactly once, whole, whenever the writer is killed."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.config import ConfigError
from renio_pipeline.recordings import parts
from renio_pipeline.recordings import recorder as module
from renio_pipeline.recordings.manifest import RecordedTeacher
from renio_pipeline.recordings.recorder import clock_of, recorder
from renio_pipeline.recordings.recording import Recording
from renio_pipeline.run_dir.checkpoint_files import write_durably
from tests.unit.recordings.made import K, manifest, prompt, recorded, scored


class Killed(BaseException):
    """The process ended here."""


class Dying:
    """``write_durably`` of a process that is killed at one of its writes: before it, within it or after it."""

    def __init__(self, at: int, how: str) -> None:
        self.left, self.how = at, how

    def __call__(self, path: Path, text: Any) -> None:
        self.left -= 1
        if self.left >= 0:
            write_durably(path, text)
            return
        if self.how == "within":
            data = text.encode() if isinstance(text, str) else text
            path.with_name(f".{path.name}.aside").write_bytes(data[: len(data) // 2])
        elif self.how == "after":
            write_durably(path, text)
        raise Killed


DEATHS = st.lists(st.tuples(st.integers(0, 7), st.sampled_from(["before", "within", "after"])), max_size=5)


@given(DEATHS, st.integers(1, 9), st.integers(1, 4))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_killed_at_any_write_and_started_again_it_has_every_response_once(
    deaths: list[tuple[int, str]], samples: int, size: int
) -> None:
    prompts = [prompt(i) for i in range(samples)]
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        folder, attempts = Path(place) / "scores", dict[int, int]()

        def attempt(number: int) -> None:
            with recorder(folder, manifest()) as to:
                missing = to.missing(prompts)
                for start in range(0, len(missing), size):
                    batch = missing[start : start + size]
                    to.add([scored(each, attempt=number) for each in batch])
                    attempts.update({each.sample_id: number for each in batch})

        for number, (at, how) in enumerate(deaths):
            dying = Dying(at, how)
            for where in (module, parts):
                patch.setattr(where, "write_durably", dying)
            try:
                attempt(number)
            except Killed:
                continue
        patch.undo()
        attempt(len(deaths))
        found = Recording.open(folder, "--out")
        assert sorted(found.by_sample) == list(range(samples))
        for asked in prompts:
            entry = found.find(asked, 0)
            ids, logprobs = found.response(entry)
            told, table = found.signals(entry, ids, K)
            candidates = [scored(asked, attempt=number) for number in range(len(deaths) + 1)]
            (same,) = [c for c in candidates if c.score_key == entry.score_key][:1]
            np.testing.assert_array_equal(ids, same.token_ids)
            np.testing.assert_array_equal(logprobs, same.student_logprobs)
            np.testing.assert_array_equal(told, same.teacher_logprobs)
            assert table is not None
            assert same.top_k is not None
            np.testing.assert_array_equal(table.logprobs, same.top_k.logprobs)
        assert len(list(folder.glob("part-*.safetensors"))) == len(list(folder.glob("part-*.parquet")))


def test_nothing_is_written_again_when_all_is_there(tmp_path: Path) -> None:
    prompts = [prompt(i) for i in range(5)]
    folder = recorded(tmp_path / "scores", prompts)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with recorder(folder, manifest()) as to:
        assert to.missing(prompts) == []
        assert [p.sample_id for p in to.missing([*prompts, prompt(9)])] == [9]
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_what_is_nan_is_named_and_not_written(tmp_path: Path) -> None:
    bad = scored(prompt(3), 5)
    bad.teacher_logprobs[2] = np.nan
    with (
        recorder(tmp_path / "scores", manifest()) as to,
        pytest.raises(ValueError, match=r"sample 3 \(row 'row3'\): teacher_logprobs has nan at token 2"),
    ):
        to.add([scored(prompt(2)), bad])
    assert len(Recording.open(tmp_path / "scores", "--out")) == 0


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with (
        recorder(tmp_path / "scores", manifest()),
        pytest.raises(ConfigError, match="another renio score writes to"),
        recorder(tmp_path / "scores", manifest()),
    ):
        pass


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", 2.0),
        ("tokenizer", "k2"),
        ("seed", 1),
        ("student_version", "s2"),
        ("sampling", {"temperature": 0.5}),
        ("teachers", {"": RecordedTeacher(model="T", version="t2")}),
    ],
)
def test_another_configuration_does_not_go_on(tmp_path: Path, key: str, value: Any) -> None:
    folder = recorded(tmp_path / "scores", [prompt(0)])
    with (
        pytest.raises(ConfigError, match=f"--out: .* was recorded with another {key} "),
        recorder(folder, manifest(**{key: value})),
    ):
        pass


def test_other_versions_of_packages_go_on(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "scores", [prompt(0)])
    with recorder(folder, manifest(versions={"torch": "9"})) as to:
        assert to.missing([prompt(0)]) == []


def test_a_sample_that_is_asked_in_other_words_is_refused_by_its_row(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "scores", [prompt(0)])
    with (
        recorder(folder, manifest()) as to,
        pytest.raises(ConfigError, match="has sample 0 as row 'row0', and now it is row 'row7'"),
    ):
        to.missing([prompt(0, row=7)])


def test_what_differs_of_a_sample_that_is_there_is_said(tmp_path: Path) -> None:
    teachers = {name: RecordedTeacher(model="T", version="t1") for name in "ab"}
    asked = prompt(0)
    with recorder(tmp_path / "scores", manifest(teachers=teachers)) as to:
        to.add([replace(scored(asked), teacher="a")])
        mine = replace(asked, row=replace(asked.row, teacher="a"))
        assert to.missing([mine]) == []
        with pytest.raises(ConfigError, match=r"as row 'row0', which was asked with another prompt; give"):
            to.missing([replace(mine, student_ids=asked.student_ids + 1)])
        with pytest.raises(ConfigError, match=r"as row 'row0', scored by teacher 'a', and now it is for teacher 'b'; give"):
            to.missing([replace(asked, row=replace(asked.row, teacher="b"))])


def test_the_time_that_a_template_is_told_is_the_recordings_and_else_that_of_what_is_reused(tmp_path: Path) -> None:
    times = {"old": "2026-01-02T10:30:00", "new": "2026-01-03T10:30:00"}
    for name, clock in times.items():
        with recorder(tmp_path / name, manifest(clock=clock)):
            pass
    assert clock_of(tmp_path / "none") is None
    assert clock_of(tmp_path / "none", [tmp_path / "old"]) == times["old"]
    assert clock_of(tmp_path / "new", [tmp_path / "old"]) == times["new"]
    with recorder(tmp_path / "old", manifest(clock="2026-05-05T00:00:00")) as to:
        assert to.recording.manifest.clock == times["old"], "a recording that goes on keeps its own"


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(ConfigError, match="is not empty and no recording"), recorder(tmp_path, manifest()):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ConfigError, match="is no folder"), recorder(tmp_path / "thesis.tex", manifest()):
        pass


def test_signals_of_an_equal_response_are_taken_from_another_recording_of_the_same_teacher(tmp_path: Path) -> None:
    old, mine = recorded(tmp_path / "old", [prompt(i) for i in range(4)], length=5), prompt(9, row=2)
    known = replace(scored(prompt(2), 5), sample_id=9)
    with recorder(tmp_path / "new", manifest(seed=1), [old]) as to:
        blank = replace(known, teacher_logprobs=np.zeros(0, np.float32), top_k=None)
        found = to.known(blank.score_key, blank)
        assert found is not None
        np.testing.assert_array_equal(found.teacher_logprobs, known.teacher_logprobs)
        assert (found.sample_id, to.known(scored(mine, 5).score_key, blank)) == (9, None)
        assert to.known(scored(prompt(2), 5, teacher="t2").score_key, blank) is None, "another teacher"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"temperature": 2.0}, "another temperature"),
        ({"tokenizer": "k2"}, "another tokenizer"),
        ({"vocab_size": 51}, "another vocab_size"),
        ({"top_k": K + 1}, f"the {K} likeliest tokens, not {K + 1}"),
    ],
)
def test_what_cannot_be_reused_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    old = recorded(tmp_path / "old", [prompt(0)])
    with pytest.raises(ConfigError, match=f"--reuse: .* has {said}"), recorder(tmp_path / "new", manifest(**changes), [old]):
        pass
