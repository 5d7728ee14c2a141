"""A recording from anywhere: what is in it is found, and what is wrong with it is named before it is used."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from renio_pipeline.config import ConfigError
from renio_pipeline.recordings.manifest import FILE, RecordedTeacher, read_manifest
from renio_pipeline.recordings.parts import DamagedError
from renio_pipeline.recordings.recorder import recorder
from renio_pipeline.recordings.recording import Recording
from tests.unit.recordings.made import K, V, manifest, prompt, recorded, scored


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return recorded(tmp_path / "scores", [prompt(i) for i in range(6)], length=5)


def arrays_of(folder: Path) -> Path:
    return folder / "part-000001.safetensors"


def changed(folder: Path, name: str, place: Any, value: Any) -> None:
    arrays = dict(load_file(arrays_of(folder)))
    arrays[name][place] = value
    save_file(arrays, arrays_of(folder))


def test_a_manifest_says_what_it_was_written_with(folder: Path) -> None:
    assert read_manifest(folder, "teacher.path") == manifest()


def test_of_several_responses_to_a_prompt_the_samples_own_comes_first_and_then_one_that_the_seed_chooses(
    tmp_path: Path,
) -> None:
    folder = recorded(tmp_path / "scores", [prompt(i, row=i // 4) for i in range(12)], length=4)
    found = Recording.open(folder, "teacher.path")
    assert [found.find(prompt(i, row=i // 4), 0).sample_id for i in range(12)] == list(range(12))
    chosen = [found.find(prompt(100 + i, row=1), 0).sample_id for i in range(200)]
    assert set(chosen) == {4, 5, 6, 7}
    assert min(np.bincount(chosen)[4:]) > 25, "one is seldom chosen"
    assert chosen == [found.find(prompt(100 + i, row=1), 0).sample_id for i in range(200)]
    assert chosen != [found.find(prompt(100 + i, row=1), 1).sample_id for i in range(200)]


def test_signals_of_another_teacher_answer_no_prompt(tmp_path: Path) -> None:
    teachers = {name: RecordedTeacher(model="T", version="t1") for name in "ab"}
    with recorder(tmp_path / "scores", manifest(teachers=teachers)) as to:
        to.add([replace(scored(prompt(i, row=0), 5), teacher=name) for i, name in enumerate("ab")])
        for name, sample_id in (("a", 0), ("b", 1)):
            assert {to.recording.find(prompt(i, row=0), 0, name).sample_id for i in range(9)} == {sample_id}
        with pytest.raises(ConfigError, match="has no response to row 'row0'"):
            to.recording.find(prompt(0, row=0), 0, "c")


def test_a_prompt_without_a_response_is_named_by_its_row(folder: Path) -> None:
    found = Recording.open(folder, "teacher.path")
    with pytest.raises(
        ConfigError, match=r"^teacher\.path: .* has no response to row 'row77' \(it has 6, of other rows\); record"
    ):
        found.find(prompt(0, row=77), 0)
    asked = prompt(3)
    other = type(asked)(sample_id=3, row=asked.row, student_ids=asked.student_ids + 1, teacher_ids=asked.teacher_ids)
    with pytest.raises(ConfigError, match="has a response to row 'row3', but to another prompt"):
        found.find(other, 0)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def linked(path: Path) -> None:
    shutil.move(path, path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def nested(path: Path) -> None:
    path.write_text("[" * 100_000)


@pytest.mark.parametrize("harm", [cut, linked, emptied, piped, Path.unlink, nested])
@pytest.mark.parametrize("name", [FILE, "part-000002.parquet", "part-000002.safetensors"])
def test_a_file_that_is_missing_cut_or_a_link_is_named_when_the_folder_is_opened(
    folder: Path, name: str, harm: Callable[[Path], None]
) -> None:
    harm(folder / name)
    if name.endswith(".parquet") and harm is Path.unlink:
        assert sorted(Recording.open(folder, "teacher.path").by_sample) == [0, 1, 2], "the part was never completed"
        return
    with pytest.raises(ConfigError, match=rf"^teacher\.path: .*{name}"):
        Recording.open(folder, "teacher.path")


@pytest.mark.parametrize(
    "values",
    [
        {"format": 2}, {"format": None}, {"vocab_size": "50"}, {"vocab_size": -1}, {"temperature": float("nan")},
        {"temperature": 0}, {"top_k": 0}, {"kind": "hidden"}, {"teachers": {}}, {"teachers": {"": {"model": "T"}}},
        {"teachers": [1]}, {"more": 1}, {"max_response_tokens": True}, {"teachers": {"": {"model": "T", "version": 3}}},
        {"clock": "yesterday"}, {"clock": 5},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_that_cannot_be_true_is_refused(folder: Path, values: dict[str, Any]) -> None:
    known = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(known | values))
    with pytest.raises(ConfigError, match=r"manifest\.json cannot be read as a recording's manifest"):
        read_manifest(folder, "teacher.path")


def test_a_manifest_that_would_fill_the_memory_is_not_read(folder: Path) -> None:
    with (folder / FILE).open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match="has more than 1048576 bytes"):
        read_manifest(folder, "teacher.path")


def test_arrays_of_another_shape_or_type_are_refused_when_the_folder_is_opened(folder: Path) -> None:
    arrays = dict(load_file(arrays_of(folder)))
    for name, other, said in [
        ("top_k_ids", arrays["top_k_ids"][:, :-1].copy(), rf"top_k_ids is I32 \[15, {K}\], expected I32 \[15, {K + 1}\]"),
        ("token_ids", arrays["token_ids"][:-1].copy(), r"token_ids is I32 \[14\], expected I32 \[15\]"),
        ("teacher_logprobs", arrays["teacher_logprobs"].astype(np.float64), "teacher_logprobs is F64"),
    ]:
        save_file(arrays | {name: other}, arrays_of(folder))
        with pytest.raises(ConfigError, match=said):
            Recording.open(folder, "teacher.path")
    save_file({n: a for n, a in arrays.items() if n != "token_ids"}, arrays_of(folder))
    with pytest.raises(ConfigError, match=r"part-000001\.safetensors cannot be read"):
        Recording.open(folder, "teacher.path")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("student_logprobs", np.nan, "student_logprobs has nan at token 2, which is no log-probability"),
        ("teacher_logprobs", np.inf, "teacher_logprobs has inf at token 2"),
        ("teacher_logprobs", 0.5, "teacher_logprobs has 0.5 at token 2"),
        ("top_k_logprobs", np.nan, "top_k_logprobs has nan at token 2"),
        ("token_ids", V, "token ids outside the 50 entries"),
        ("token_ids", -1, "token ids outside the 50 entries"),
        ("top_k_ids", V + 7, "token ids outside the 50 entries"),
    ],
)
def test_numbers_that_cannot_be_are_named_with_their_sample_and_row(folder: Path, name: str, value: float, said: str) -> None:
    changed(folder, name, 7, value)
    found = Recording.open(folder, "teacher.path")
    entry = found.find(prompt(1), 0)
    with pytest.raises(DamagedError, match=rf"part-000001\.safetensors: sample 1 \(row 'row1'\): .*{said}"):
        found.signals(entry, found.response(entry)[0], K)


def test_arrays_of_another_part_are_not_taken_for_this_ones(folder: Path) -> None:
    one, two = arrays_of(folder), folder / "part-000002.safetensors"
    one.rename(folder / "kept")
    two.rename(one)
    (folder / "kept").rename(two)
    found = Recording.open(folder, "teacher.path")
    with pytest.raises(DamagedError, match=r"sample 1 \(row 'row1'\) is not the response that was recorded"):
        found.response(found.find(prompt(1), 0))


def test_a_top_k_table_of_another_response_is_not_taken_for_this_ones(folder: Path) -> None:
    found = Recording.open(folder, "teacher.path")
    entry = found.find(prompt(1), 0)
    with pytest.raises(DamagedError, match="the first column of top_k_ids is not the response"):
        found.signals(entry, (scored(prompt(1), 5).token_ids + 1) % V, K)


def test_a_sample_that_two_parts_have_is_refused(folder: Path) -> None:
    for suffix in (".parquet", ".safetensors"):
        shutil.copy(folder / f"part-000001{suffix}", folder / f"part-000003{suffix}")
    with pytest.raises(ConfigError, match=r"part-000003\.parquet: sample 0 is in part-000001\.parquet too"):
        Recording.open(folder, "teacher.path")


def test_a_folder_that_is_no_recording_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^teacher\.path: there is no folder"):
        Recording.open(tmp_path / "none", "teacher.path")
    with pytest.raises(ConfigError, match=r"has no manifest\.json, so it is no recording"):
        Recording.open(tmp_path, "teacher.path")
