"""A resume on data that is not what the run has read: what is said of it, and how the run goes on if it may."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.schema import Data, Source
from renio_pipeline.data.changes import compare
from renio_pipeline.data.draw_order import DrawOrder
from renio_pipeline.data.prints import PrintsMaker, content_of
from renio_pipeline.data.settling import Settled, settle
from renio_pipeline.data.sources import load_rows
from renio_pipeline.run_dir.data_record import Prints, Stretch, read_record, write_stretch
from renio_pipeline.run_dir.resume import check_same_run
from renio_pipeline.types import Row
from tests.unit.conftest import make_config

CLOCK = "2026-01-02T10:00:00"
LATE = 5  # a position in the first pass


def rows_of(texts: Sequence[str], *, numbered: bool = False) -> list[Row]:
    """``a``: the row with id a; ``a:x`` with the content x."""
    rows = []
    for line, text in enumerate(texts, 1):
        name, _, content = text.partition(":")
        rows.append(Row(id=str(line) if numbered else name, problem=content or name, line=line, numbered=numbered))
    return rows


def prints_of(rows: Sequence[Row], prompt: int = 0) -> Prints:
    maker = PrintsMaker()
    for row in rows:
        maker.add(row, [np.array([prompt, len(row.problem)], np.int32)])
    return maker.made()


def stretch_of(training: str = "abcdefgh", held_out: str = "xyz", *, asked: int = 3, prompt: int = 0) -> Stretch:
    return Stretch(
        training=prints_of(rows_of(training.split() if " " in training else training), prompt),
        held_out=prints_of(rows_of(held_out)),
        asked=asked,
    )


def config_of(folder: Path, **data: Any) -> RunConfig:
    for name in ("rows.jsonl", "held.jsonl"):
        (folder / name).write_text("12345")
    data = {"path": str(folder / "rows.jsonl"), "held_out_path": str(folder / "held.jsonl")} | data
    return make_config(run_dir=str(folder / "run"), data=data)


def recorded(folder: Path, stretch: Stretch, **data: Any) -> RunConfig:
    """The configuration of a run that has read that."""
    config = config_of(folder, **data)
    config.directory.mkdir()
    write_stretch(config.directory, config.data, stretch, CLOCK)
    return config


def refusal(folder: Path, now: Stretch, was: Stretch | None = None) -> str:
    config = recorded(folder, was or stretch_of())
    before = {path: path.read_bytes() for path in config.directory.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as caught:
        settle(config, now, LATE)
    assert {path: path.read_bytes() for path in config.directory.rglob("*") if path.is_file()} == before
    first, *lines, last = str(caught.value).splitlines()
    assert first == "--resume: the data is not what the run has read:"
    assert "data.changed=continue" in last
    return "\n".join(lines).replace(str(folder), "")


def allowed(folder: Path, now: Stretch, was: Stretch | None = None, position: int = LATE) -> Settled:
    config = recorded(folder, was or stretch_of())
    return settle(config.model_copy(update={"data": config.data.model_copy(update={"changed": "continue"})}), now, position)


SIZES = "it had 8 rows in 5 bytes, and has {} in 5 bytes"
SAME_FILE = "; if the file is the same, other rows of it can be used now"
REFUSED = {
    "added": (stretch_of("abcdefghij"), f"2 rows added (lines 9, 10); {SIZES.format('10 rows')}{SAME_FILE}"),
    "removed": (stretch_of("abcdfgh"), f"1 row removed (line 5 before); {SIZES.format('7 rows')}{SAME_FILE}"),
    "edited": (stretch_of("a b:B c d e f:F g h"), f"2 rows edited (lines 2, 6); {SIZES.format('8 rows')}"),
    "moved": (stretch_of("hgfedcba"), f"rows in another order; {SIZES.format('8 rows')}"),
    "all": (
        stretch_of("h i a:A c d e f g"),
        f"1 row added (line 2), 1 row removed (line 2 before), 1 row edited (line 3), rows in another order; "
        f"{SIZES.format('8 rows')}",
    ),
    "asked": (
        stretch_of(prompt=1),
        "8 rows as before, but asked in other words (lines 1, 2, 3, ...); it had 8 rows in 5 bytes, and has 8 rows in 5 "
        "bytes; the student's chat template or tokenizer, or the task, is not what it was",
    ),
}


@pytest.mark.parametrize(("now", "said"), REFUSED.values(), ids=REFUSED)
def test_other_rows_are_refused_by_the_file_and_what_is_different(tmp_path: Path, now: Stretch, said: str) -> None:
    assert refusal(tmp_path, now) == f"  data.path: /rows.jsonl: {said}"


def test_other_held_out_rows_are_refused_too(tmp_path: Path) -> None:
    assert refusal(tmp_path, stretch_of("abcdefg", "xyv")).splitlines() == [
        f"  data.path: /rows.jsonl: 1 row removed (line 8 before); {SIZES.format('7 rows')}{SAME_FILE}",
        "  data.held_out_path: /held.jsonl: 1 row added (line 3), 1 row removed (line 3 before); it had 3 rows in 5 bytes, "
        f"and has 3 rows in 5 bytes{SAME_FILE}",
    ]


def test_rows_without_ids_are_told_apart_by_what_they_say(tmp_path: Path) -> None:
    """A line that is put before the others changes every number, but no other row."""
    was = Stretch(training=prints_of(rows_of(["p", "q", "q", "r"], numbered=True)))
    now = Stretch(training=prints_of(rows_of(["new", "p", "q", "q", "r"], numbered=True)))
    assert refusal(tmp_path, now, was).startswith("  data.path: /rows.jsonl: 1 row added (line 1); ")


def test_the_same_data_goes_on_without_a_word_in_the_order_that_it_has(tmp_path: Path) -> None:
    config = recorded(tmp_path, stretch_of())
    found = settle(config, stretch_of(), LATE)
    assert (found.notes, found.stretch.start, found.stretch.first) == ((), 0, None)
    assert found.stretch.training.contents.tolist() == stretch_of().training.contents.tolist()


def test_what_may_go_on_first_draws_what_the_pass_has_not_drawn(tmp_path: Path) -> None:
    was, now = stretch_of(), stretch_of("abcdijkl")
    found = allowed(tmp_path, now, was)
    assert [note.partition(": ")[0] for note in found.notes] == ["data.path", "data.changed=continue"]
    order = DrawOrder(8, 0, 1, was)
    early = {int(was.training.identities[order.index(i)]) for i in range(LATE)}
    left = set(map(int, now.training.identities)) - early
    assert found.notes[1].endswith(f"pass 1 is completed with the {len(left)} rows that it has not drawn yet")
    order = DrawOrder(8, 0, 1, found.stretch)
    late = [int(now.training.identities[order.index(i)]) for i in range(LATE, LATE + len(left))]
    assert set(late) == left
    assert len(set(late)) == len(late)


@pytest.mark.parametrize("now", [REFUSED["edited"][0], REFUSED["asked"][0], stretch_of(held_out="vw", asked=2)], ids=str)
def test_where_every_position_means_the_row_that_it_meant_the_order_stays(tmp_path: Path, now: Stretch) -> None:
    found = allowed(tmp_path, now)
    assert (found.stretch.start, found.stretch.first) == (0, None)
    assert len(found.notes) == 1
    assert found.stretch.training.contents.tolist() == now.training.contents.tolist()


def test_a_run_that_has_trained_nothing_starts_with_the_data_that_there_is(tmp_path: Path) -> None:
    found = settle(recorded(tmp_path, stretch_of()), stretch_of("ab"), 0)
    assert len(found.stretch.training) == 2
    assert "nothing was trained yet, so the run starts with the data as it is" in found.notes


def test_a_run_of_an_earlier_version_is_recorded_from_now_on(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    found = settle(config, stretch_of(), LATE)
    assert found.stretch.start == 0
    assert found.notes == (
        "this run has no record of its data, so it is not known whether that changed; it is recorded from now on",
    )
    assert settle(config, stretch_of(), 0).notes == (), "a new run"


def test_more_or_fewer_held_out_problems_may_be_asked_for_and_the_longer_record_stays(tmp_path: Path) -> None:
    config = recorded(tmp_path, stretch_of(asked=3))
    fewer = settle(config, stretch_of(held_out="xy", asked=2), LATE)
    assert fewer.notes == ()
    assert (len(fewer.stretch.held_out), fewer.stretch.asked) == (3, 3)
    more = settle(config, stretch_of(held_out="xyzv", asked=4), LATE)
    assert (len(more.stretch.held_out), more.stretch.asked) == (4, 4)
    with pytest.raises(ConfigError, match=r"data\.held_out_path"):
        settle(config, stretch_of(held_out="xyzv", asked=3), LATE)
    with pytest.raises(ConfigError, match=r"data\.held_out_path"):
        settle(config, stretch_of(held_out="vy", asked=2), LATE)


def test_rows_that_a_task_makes_are_compared_too_except_those_for_another_number(tmp_path: Path) -> None:
    config = recorded(tmp_path, stretch_of(asked=3), path=None, held_out_path=None)
    assert settle(config, stretch_of(held_out="vw", asked=2), LATE).notes == ()
    with pytest.raises(ConfigError) as caught:
        settle(config, stretch_of("abcdefgx", "vyz"), LATE)
    assert str(caught.value).splitlines()[1:3] == [
        "  task: the rows that the task makes: 1 row added, 1 row removed; it had 8 rows, and has 8 rows",
        "  task: the rows that the task makes: 1 row added, 1 row removed; it had 3 rows, and has 3 rows",
    ]


def test_a_file_whose_rows_have_no_ids_is_read_as_one(tmp_path: Path) -> None:
    """Only the rows that were put in are other rows, wherever they were put."""
    path = tmp_path / "rows.jsonl"

    def read(*problems: str, **other: str) -> Prints:
        path.write_text("".join(json.dumps({"problem": problem} | other) + "\n" for problem in problems))
        return prints_of(load_rows(Source(path=str(path))))

    was, now = read("p", "q", "q"), read("new", "p", "q", "q")
    changes = compare(was, now)
    assert (changes.added.tolist(), changes.removed.tolist(), changes.edited.tolist()) == ([0], [], [])
    assert len(compare(read("p", id="1"), read("q", id="1")).edited) == 1, "an id of its own, which happens to be its line"


def test_the_record_names_files_sizes_rows_and_hashes(tmp_path: Path) -> None:
    config = recorded(tmp_path, stretch_of())
    found = json.loads((config.directory / "data.json").read_text())
    (stretch,) = found["stretches"]
    assert found["template_clock"] == CLOCK
    assert stretch["from_sample"] == 0
    training = stretch["training"]
    assert (training["path"], training["bytes"], training["rows"]) == (config.data.path, 5, 8)
    assert len({training[name] for name in ("ids", "contents", "prompts")}) == 3
    (tmp_path / "folder").mkdir()
    for name in "ab":
        (tmp_path / "folder" / name).write_text("1234")
    write_stretch(config.directory, Data(path=str(tmp_path / "folder")), replace(stretch_of("a"), start=7), CLOCK)
    record = read_record(config.directory)
    assert record is not None
    origins = [(entry.from_sample, entry.training) for entry in record.stretches]
    assert [(start, origin.rows, origin.bytes) for start, origin in origins] == [(0, 8, 5), (7, 1, 8)]
    assert [record.at(position).from_sample for position in (0, 6, 7, 99)] == [0, 0, 7, 7]
    write_stretch(config.directory, config.data, stretch_of(), CLOCK)
    again = read_record(config.directory)
    assert again is not None
    assert len(again.stretches) == 1, "a run that resumed before the change has not changed its data"
    assert [path.name for path in (config.directory / "data").iterdir()] == ["from_000000000000.npz"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"template_clock": "x", "stretches": []}', "\x00"])
def test_a_record_that_is_damaged_is_named(tmp_path: Path, text: str) -> None:
    config = recorded(tmp_path, stretch_of())
    (config.directory / "data.json").write_text(text)
    with pytest.raises(ConfigError, match=r"^data\.changed: .*data\.json, which says what the run has read, cannot be read"):
        settle(config, stretch_of(), LATE)


@pytest.mark.parametrize("cut", [0, 10, 300, None])
def test_so_are_fingerprints_that_are_damaged(tmp_path: Path, cut: int | None) -> None:
    config = recorded(tmp_path, stretch_of())
    path = config.directory / "data" / "from_000000000000.npz"
    if cut is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ConfigError, match=r"^data\.changed: .*from_000000000000\.npz.* cannot be read"):
        settle(config, stretch_of(), LATE)


def test_only_what_is_allowed_to_change_may_have_another_place(tmp_path: Path) -> None:
    was, now = config_of(tmp_path), config_of(tmp_path, path="other.jsonl")
    with pytest.raises(ConfigError, match=r"data\.path: the run has "):
        check_same_run(was, now)
    check_same_run(was, config_of(tmp_path, path="other.jsonl", changed="continue"))
    with pytest.raises(ConfigError, match=r"data\.max_prompt_tokens: the run has "):
        check_same_run(was, config_of(tmp_path, max_prompt_tokens=5, changed="continue"))


def test_a_fingerprint_is_the_same_on_every_machine_and_tells_nothing_from_empty() -> None:
    assert content_of(Row(id="a", problem="1+1", answer="2")) == 15581165944558162249
    rows = [
        Row(id="a", problem="p"),
        Row(id="a", problem="p", answer=""),
        Row(id="a", problem="p", solution=""),
        Row(id="a", problem="", answer="p"),
        Row(id="a", problem="p", tests="="),
        Row(id="a", problem="p="),
    ]
    assert len({content_of(row) for row in rows}) == len(rows)
    assert content_of(Row(id="b", problem="p", line=7)) == content_of(rows[0]), "neither the id nor the place is content"


def test_rows_of_equal_content_have_identities_of_their_own() -> None:
    found = prints_of(rows_of(["p", "q", "p", "p", "q"], numbered=True))
    assert len(set(found.identities.tolist())) == 5
    assert len(set(found.contents.tolist())) == 2
    fewer = prints_of(rows_of(["p", "q", "p"], numbered=True))
    assert set(fewer.identities.tolist()) < set(found.identities.tolist())
    assert len(prints_of([])) == 0
