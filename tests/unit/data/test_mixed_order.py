"""The order in which several sources are drawn: by their shares, each as if alone, and the same wherever a run is resumed."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.config.mixture import parts
from renio_pipeline.config.schema import Data, MixedSource
from renio_pipeline.data.changes import compare
from renio_pipeline.data.draw_order import DrawOrder
from renio_pipeline.data.mixing.mixed_order import Interleaving, MixedOrder, source_seed
from renio_pipeline.data.mixing.mixed_settling import SourceChanges, carried_on, compared
from renio_pipeline.data.prints import PrintsMaker
from renio_pipeline.run_dir.data_record import Prints, Stretch, read_record, read_stretch, write_stretch
from renio_pipeline.types import Row

for_all = settings(deadline=None, derandomize=True, max_examples=60)
SHARES = st.lists(st.floats(0.01, 1), min_size=1, max_size=4)
SEEDS = st.integers(0, 2**31 - 1)


def prints_of(name: str, rows: int | list[int]) -> Prints:
    maker = PrintsMaker()
    for i in range(rows) if isinstance(rows, int) else rows:
        maker.add(Row(id=f"{name}/{i}", problem=f"{name} {i}"), [np.array([i], np.int32)])
    return maker.made()


def mixture(**sources: tuple[float, int | list[int]]) -> Stretch:
    """Sources by name: the weight, and the number of rows or the rows themselves."""
    total = sum(weight for weight, _ in sources.values())
    made = [
        Stretch(name=name, share=weight / total, training=prints_of(name, rows)) for name, (weight, rows) in sources.items()
    ]
    return Stretch(parts=tuple(sorted(made, key=lambda part: part.name)))


def drawn(stretch: Stretch, samples: range, *, seed: int = 0, repeat: int = 1) -> list[tuple[str, int]]:
    """Of each sample: its source, and its row's identity."""
    order = MixedOrder(seed, repeat, stretch)
    identities = np.concatenate([part.training.identities for part in stretch.parts])
    return [(stretch.parts[order.drawn_as(i).source].name, int(identities[order.index(i)])) for i in samples]


def changes_of(was: Stretch, now: Stretch) -> SourceChanges:
    before = {part.name: part for part in was.parts}
    both = [part for part in now.parts if part.name in before]
    found = {part.name: compare(before[part.name].training, part.training) for part in both}
    return SourceChanges(lines=("changed",), rows=True, by_source=found)


@for_all
@given(shares=SHARES, seed=SEEDS, first=st.integers(0, 100_000), count=st.integers(1, 3000))
def test_any_slots_in_a_row_are_mixed_as_the_whole_run_is(shares: list[float], seed: int, first: int, count: int) -> None:
    found = np.bincount(Interleaving(shares, seed).sources(first, count), minlength=len(shares))
    wanted = np.array(shares) / sum(shares) * count
    assert found.sum() == count
    assert (np.abs(found - wanted) <= 2 + 1.5 * np.log(count)).all()


@for_all
@given(shares=SHARES, seed=SEEDS, slot=st.integers(0, 20_000))
def test_slots_are_counted_as_they_are_drawn(shares: list[float], seed: int, slot: int) -> None:
    order = Interleaving(shares, seed)
    assert order.before(slot).tolist() == np.bincount(order.sources(0, slot), minlength=len(shares)).tolist()


def test_the_order_is_what_the_documents_define() -> None:
    """By the definition alone, in Python's own integers, so that a later version cannot change it unnoticed."""
    found = Interleaving([0.25, 0.75], 7).sources(0, 12).tolist()
    start, golden = int.from_bytes(hashlib.blake2b(b"7", digest_size=8).digest(), "little"), 0x9E3779B97F4A7C15
    assert found == [int((start + i * golden) % 2**64 >= 2**62) for i in range(12)]


@pytest.mark.slow
@for_all
@given(seed=SEEDS, repeat=st.integers(1, 3), sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_a_source_is_drawn_as_if_it_were_alone(seed: int, repeat: int, sizes: tuple[int, int]) -> None:
    stretch = mixture(a=(3, sizes[0]), b=(1, sizes[1]))
    found = drawn(stretch, range(60 * repeat), seed=seed, repeat=repeat)
    for part in stretch.parts:
        own = [identity for name, identity in found if name == part.name]
        alone = DrawOrder(len(part.training), source_seed(seed, part.name), repeat, Stretch(training=part.training))
        assert own == [int(part.training.identities[alone.index(i)]) for i in range(len(own))]


def test_a_source_keeps_its_own_order_whatever_it_is_mixed_with() -> None:
    def own(stretch: Stretch) -> list[int]:
        return [identity for name, identity in drawn(stretch, range(200)) if name == "b"][:30]

    assert own(mixture(b=(1, 7))) == own(mixture(a=(1, 5), b=(1, 7))) == own(mixture(b=(1, 7), c=(2, 3), a=(1, 9)))


def test_another_seed_draws_in_another_order() -> None:
    stretch = mixture(a=(1, 50), b=(1, 50))
    assert drawn(stretch, range(40), seed=1) != drawn(stretch, range(40), seed=2)


@pytest.mark.slow
@for_all
@given(seed=SEEDS, repeat=st.integers(1, 3), cuts=st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_a_resume_anywhere_draws_what_an_uninterrupted_run_draws(seed: int, repeat: int, cuts: list[int]) -> None:
    stretch = mixture(a=(2, 5), b=(1, 4), c=(0.3, 2))
    straight = drawn(stretch, range(200), seed=seed, repeat=repeat)
    found, position = [], 0
    for cut in [*cuts, 200 - sum(cuts)]:  # each part by an order that is made anew, as a resume makes it
        found += drawn(stretch, range(position, position + cut), seed=seed, repeat=repeat)
        position += cut
    assert found == straight


@pytest.mark.slow
@for_all
@given(seed=SEEDS, repeat=st.integers(1, 3), at=st.integers(0, 50), later=st.integers(0, 30))
def test_a_new_stretch_of_the_same_sources_draws_the_same(seed: int, repeat: int, at: int, later: int) -> None:
    """What does not change when others do: an unchanged source goes on in its own order, through any number of changes."""
    was = mixture(a=(2, 5), b=(1, 4))
    new = carried_on(was, was, changes_of(was, was), at, seed, repeat)
    newer = carried_on(new, was, changes_of(new, was), at + later, seed, repeat)
    straight = drawn(was, range(at, 160), seed=seed, repeat=repeat)
    assert drawn(new, range(at, 160), seed=seed, repeat=repeat) == straight
    assert drawn(newer, range(at + later, 160), seed=seed, repeat=repeat) == straight[later:]


ROWS = st.lists(st.integers(0, 8), min_size=1, max_size=7, unique=True)
MIXES = st.dictionaries(st.sampled_from("abc"), st.tuples(st.sampled_from([0.5, 1.0, 3.0]), ROWS), min_size=1)


@pytest.mark.slow
@for_all
@given(mixes=st.lists(st.tuples(MIXES, st.integers(0, 30)), min_size=2, max_size=4), repeat=st.integers(1, 3), seed=SEEDS)
def test_whatever_changes_no_source_draws_a_row_twice_in_a_pass(
    mixes: list[tuple[dict[str, tuple[float, list[int]]], int]], repeat: int, seed: int
) -> None:
    stretch, position = mixture(**mixes[0][0]), 0
    slots: dict[tuple[str, int, int], set[int]] = {}
    of_slot: dict[int, set[str]] = {}
    before: set[str] = set()
    for sources, count in mixes:
        now = mixture(**sources)
        stretch = carried_on(stretch, now, changes_of(stretch, now), position, seed, repeat)
        names = {part.name for part in stretch.parts}
        for name in before - names:  # a source that comes back begins anew
            slots = {key: value for key, value in slots.items() if key[0] != name}
        before = names
        order = MixedOrder(seed, repeat, stretch)
        orders = [DrawOrder(len(p.training), source_seed(seed, p.name), repeat, p) for p in stretch.parts]
        for sample in range(position, position + count):
            source, own = order.drawn_as(sample)
            epoch, _ = orders[source].drawn(own)
            part = stretch.parts[source]
            row = int(part.training.identities[orders[source].index(own)])
            slots.setdefault((part.name, epoch, row), set()).add(own // repeat)
            of_slot.setdefault(sample // repeat, set()).add(part.name)
        position += count
    assert all(len(found) == 1 for found in slots.values()), "a row is drawn twice in a pass"


def test_a_slot_that_was_partly_drawn_is_finished_whatever_the_weights_are_now() -> None:
    was = mixture(a=(1, 6), b=(1, 6))
    at = next(i for i in range(1, 60, 3) if drawn(was, range(i, i + 1), repeat=3)[0][0] == "a")
    now = mixture(a=(1, 6), b=(1e6, 6))
    new = carried_on(was, now, changes_of(was, now), at, 0, 3)
    (before,) = drawn(was, range(at - 1, at), repeat=3)
    assert new.under_way == "a"
    assert drawn(new, range(at, at + 2), repeat=3) == [before, before]
    assert {name for name, _ in drawn(new, range(at + 2, at + 32), repeat=3)} == {"b"}


def test_a_stretch_of_several_sources_is_recorded_and_read_as_it_was(tmp_path: Path) -> None:
    sources = [MixedSource(path="/no/a.jsonl", weight=3), MixedSource(path="/no/b.jsonl", weight=1)]
    data = Data(sources=tuple(sources))
    was = mixture(a=(3, 6), b=(1, [0, 1, 2]))
    write_stretch(tmp_path, data, was, "2026-01-02T10:00:00")
    now = mixture(a=(3, 6), b=(1, [0, 2, 5]))
    later = carried_on(was, now, changes_of(was, now), 11, 0, 2)
    write_stretch(tmp_path, data, later, "2026-01-02T10:00:00")
    assert drawn(read_stretch(tmp_path, 0), range(40), repeat=2) == drawn(was, range(40), repeat=2)
    found = read_stretch(tmp_path, 11)
    assert drawn(found, range(11, 60), repeat=2) == drawn(later, range(11, 60), repeat=2)
    assert found.under_way == later.under_way != ""
    record = read_record(tmp_path)
    assert record is not None
    first, second = record.stretches
    assert [(s.name, s.share, s.training.path, s.training.rows) for s in first.sources] == [
        ("a", 0.75, "/no/a.jsonl", 6), ("b", 0.25, "/no/b.jsonl", 3),
    ]  # fmt: skip
    assert first.training.rows == 9
    same = compared(second, found, replace(now), {part.name: part for part in parts(data)})
    assert (same.lines, same.rows) == ((), False)


def test_every_batch_holds_every_source() -> None:
    found = drawn(mixture(a=(7, 100), b=(2, 100), c=(1, 100)), range(3200))
    batches = [Counter(name for name, _ in found[i : i + 32]) for i in range(0, 3200, 32)]
    assert all(19 <= batch["a"] <= 26 and 3 <= batch["b"] <= 10 and 1 <= batch["c"] <= 6 for batch in batches)
    assert any(one != other for one, other in pairwise(batches))


@pytest.mark.parametrize("shares", [[1.0], [1e-9, 1.0], [1.0, 1e-9]])
def test_extreme_shares_are_drawn_without_an_error(shares: list[float]) -> None:
    found = Interleaving(shares, 3).sources(0, 1000)
    assert set(found.tolist()) <= set(range(len(shares)))
