"""The order in which rows are drawn, when the rows change between a run and its resume."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.config import ConfigError
from renio_pipeline.config.schema import Data
from renio_pipeline.data.draw_order import DrawOrder, continued
from renio_pipeline.data.prints import PrintsMaker
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.run_dir.data_record import Prints, Stretch, read_stretch, write_stretch
from renio_pipeline.types import Row
from tests.unit.conftest import make_config

for_all = settings(deadline=None, derandomize=True, max_examples=100)


def prints_of(ids: list[int]) -> Prints:
    maker = PrintsMaker()
    for i in ids:
        maker.add(Row(id=f"row-{i}", problem=f"p{i}"), [np.array([i], np.int32)])
    return maker.made()


def drawn(stretch: Stretch, start: int, count: int, *, seed: int = 0, repeat: int = 1) -> list[tuple[int, int, int]]:
    """Of each sample: its slot, its pass, and its row's identity."""
    order = DrawOrder(len(stretch.training), seed, repeat, stretch)
    found = []
    for sample in range(start, start + count):
        epoch, _ = order.drawn(sample)
        found.append((sample // repeat, epoch, int(stretch.training.identities[order.index(sample)])))
    return found


def after(stretch: Stretch, position: int, ids: list[int], *, seed: int = 0, repeat: int = 1) -> Stretch:
    rows = prints_of(ids)
    return replace(continued(stretch, position, rows.identities, seed, repeat), training=rows)


SEEDS = st.integers(0, 99)
SETS = st.lists(st.integers(0, 12), min_size=1, max_size=10, unique=True)


@for_all
@given(parts=st.lists(st.tuples(SETS, st.integers(0, 25)), min_size=2, max_size=5), repeat=st.integers(1, 3), seed=SEEDS)
def test_whatever_is_added_taken_away_or_moved_no_pass_draws_a_row_twice_or_leaves_one_out(
    parts: list[tuple[list[int], int]], repeat: int, seed: int
) -> None:
    """Each part is a data set, in an order of its own, and how many samples are drawn of it before it changes."""
    stretch, position = Stretch(training=prints_of(parts[0][0])), 0
    slots: dict[tuple[int, int], list[int]] = defaultdict(list)  # by pass and row
    passes: list[tuple[int, set[int]]] = []  # of each sample: its pass, and the rows that there were
    for ids, count in parts:
        stretch = after(stretch, position, ids, seed=seed, repeat=repeat)
        for slot, epoch, row in drawn(stretch, position, count, seed=seed, repeat=repeat):
            slots[epoch, row].append(slot)
            passes.append((epoch, set(map(int, stretch.training.identities))))
        position += count
    assert all(len(set(found)) == 1 and len(found) <= repeat for found in slots.values()), "a row is drawn twice in a pass"
    for (before, rows), (later, rows_later) in pairwise(passes):
        assert later in (before, before + 1)
        if later > before:
            of_pass = {row for epoch, row in slots if epoch == before}
            assert rows <= of_pass or rows_later <= of_pass, "the next pass began before all rows were drawn"


def test_without_a_change_a_run_draws_as_it_always_did() -> None:
    stretch = Stretch(training=prints_of(list(range(7))))
    ids = stretch.training.identities
    expected = [ids[i] for epoch in range(3) for i in np.random.default_rng([5, epoch]).permutation(7)]
    assert [row for _, _, row in drawn(stretch, 0, 21, seed=5)] == expected


def test_the_pass_is_completed_with_the_rows_that_it_has_not_drawn_old_and_new() -> None:
    stretch = Stretch(training=prints_of(list(range(6))))
    before = [row for _, _, row in drawn(stretch, 0, 4)]
    later = after(stretch, 4, [*range(6), 6, 7])
    rest = drawn(later, 4, 4)
    assert {epoch for _, epoch, _ in rest} == {0}
    assert {row for _, _, row in rest} == set(map(int, later.training.identities)) - set(before)
    unseen = np.flatnonzero(~np.isin(later.training.identities, before))
    expected = np.random.default_rng([0, 0, 4]).permutation(unseen)
    assert [row for _, _, row in rest] == [int(later.training.identities[i]) for i in expected], "the order that is documented"
    following = [row for _, _, row in drawn(later, 8, 8)]
    assert following == [int(later.training.identities[i]) for i in np.random.default_rng([0, 1]).permutation(8)]


def test_a_row_that_was_partly_drawn_is_finished_first() -> None:
    stretch = Stretch(training=prints_of(list(range(5))))
    (under_way,) = {row for _, _, row in drawn(stretch, 3, 2, repeat=3)[:1]}
    later = after(stretch, 4, [9, 8, *range(5)], repeat=3)
    samples = [row for _, _, row in drawn(later, 4, 20, repeat=3)]
    assert samples[:2] == [under_way] * 2
    assert under_way not in samples[2:]
    gone = after(stretch, 4, [i for i in range(5) if int(prints_of([i]).identities[0]) != under_way], repeat=3)
    assert under_way not in {row for _, _, row in drawn(gone, 4, 9, repeat=3)}


def test_two_changes_at_one_place_in_a_row_draw_no_row_twice() -> None:
    """The row that was partly drawn is gone, and the one that takes its place is drawn in one slot, not in two."""
    stretch = Stretch(training=prints_of(list(range(5))))
    (under_way,) = {row for _, _, row in drawn(stretch, 3, 1, repeat=3)}
    rest = [i for i in range(5) if int(prints_of([i]).identities[0]) != under_way]
    twice = after(after(stretch, 4, rest, repeat=3), 4, [*rest, 9], repeat=3)
    slots: dict[int, set[int]] = defaultdict(set)
    for slot, epoch, row in drawn(twice, 4, 11, repeat=3):
        assert epoch == 0
        slots[row].add(slot)
    assert [len(found) for found in slots.values()] == [1] * 4


def test_where_nothing_is_left_of_a_pass_the_next_one_begins() -> None:
    stretch = Stretch(training=prints_of([0, 1, 2]))
    first = [row for _, _, row in drawn(stretch, 0, 2)]
    kept = [i for i in range(3) if int(prints_of([i]).identities[0]) in first]
    later = after(stretch, 2, kept)
    assert [epoch for _, epoch, _ in drawn(later, 2, 4)] == [1, 1, 2, 2]


@settings(for_all, max_examples=20)
@given(st.lists(st.tuples(SETS, st.integers(1, 15)), min_size=1, max_size=4), st.integers(1, 3))
def test_a_run_that_is_killed_anywhere_after_a_change_goes_on_from_its_record(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[list[int], int]], repeat: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    stretch, position = Stretch(training=prints_of(parts[0][0])), 0
    for ids, count in parts:
        stretch = after(stretch, position, ids, repeat=repeat)
        write_stretch(folder, Data(), stretch, "2026-01-02T10:00:00")
        again = read_stretch(folder, position)
        assert drawn(again, position, count, repeat=repeat) == drawn(stretch, position, count, repeat=repeat)
        stretch, position = again, position + count


def test_a_position_before_the_change_is_refused() -> None:
    config = make_config()
    rows = [Row(id=str(i), problem="p") for i in range(3)]
    later = Stretch(start=4, first=np.arange(3))
    Cursor([np.zeros(1, np.int32)] * 3, rows, config, 4, stretch=later)
    with pytest.raises(ConfigError, match=r"^data\.path: sample 3 was drawn before the data changed, at sample 4; end the run"):
        Cursor([np.zeros(1, np.int32)] * 3, rows, config, 3, stretch=later)


def test_a_row_that_changes_under_a_live_run_is_named_and_not_trained_on() -> None:
    rows = [Row(id=str(i), problem=f"p{i}") for i in range(3)]
    maker = PrintsMaker()
    for row in rows:
        maker.add(row, [])
    cursor = Cursor([np.zeros(1, np.int32)] * 3, rows, make_config(), stretch=Stretch(training=maker.made()))
    cursor.take(3)
    rows[1] = replace(rows[1], answer="5")
    with pytest.raises(ConfigError, match="row '1' is not what it was when the run read it first; give a run a copy"):
        cursor.take(3)
