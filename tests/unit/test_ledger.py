"""The proof that every sample was trained on exactly once: what it takes, and that it finds each way to be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.ledger import LedgerError, history, prove_exactly_once, replayed

Line = tuple[int, int, list[int]]  # step, incarnation, sample ids
RANKS: dict[int, list[Line]] = {
    0: [(1, 0, [0, 2]), (2, 0, [4, 5]), (4, 0, [8])],
    1: [(1, 0, [1, 3]), (2, 0, [6]), (4, 0, [9, 10])],
}
KEPT = {1: [0, 1, 2, 3], 2: [4, 5, 6], 4: [8, 9, 10]}  # the filter kept nothing in step 3


def write_lines(path: Path, lines: Iterable[dict[str, Any]], torn: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)


def write_run(
    folder: Path,
    ranks: dict[int, list[Line]] = RANKS,
    kept: dict[int, list[int]] = KEPT,
    resumes: Sequence[tuple[int, int]] = (),
    torn: str = "",
) -> Path:
    for rank, lines in ranks.items():
        entries = ({"step": step, "incarnation": incarnation, "sample_ids": ids} for step, incarnation, ids in lines)
        write_lines(folder / f"ledger/rank_{rank}.jsonl", entries, torn)
    for step, ids in kept.items():
        write_lines(folder / f"samples/step_{step:06d}.jsonl", ({"sample_id": i, "weight": 1.0} for i in ids), torn)
    if resumes:
        write_lines(folder / "resumes.jsonl", ({"incarnation": i, "from_step": step} for i, step in resumes), torn)
    return folder


def test_a_run_that_nothing_interrupted(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    assert history(run) == {1: {0: [0, 2], 1: [1, 3]}, 2: {0: [4, 5], 1: [6]}, 4: {0: [8], 1: [9, 10]}}
    assert list(history(run)) == [1, 2, 4]
    assert replayed(run) == 0
    prove_exactly_once(run)


def test_a_directory_in_which_nothing_was_trained(tmp_path: Path) -> None:
    assert history(tmp_path) == {}
    assert replayed(tmp_path) == 0
    prove_exactly_once(tmp_path)


def test_torn_last_lines_do_not_count(tmp_path: Path) -> None:
    run = write_run(tmp_path, resumes=[(1, 4)], torn='{"step": 5, "incarnation": 0, "sample_ids": [0, 1')
    assert history(run) == history(write_run(tmp_path / "whole"))
    prove_exactly_once(run)


def test_what_stands_beside_the_samples_files_is_not_read(tmp_path: Path) -> None:
    write_lines(tmp_path / "samples/rejected.jsonl", [{"sample_id": 7}])
    prove_exactly_once(write_run(tmp_path))


def test_a_step_that_was_rolled_back_past_counts_as_it_was_trained_last(tmp_path: Path) -> None:
    """Two ranks train steps 1 to 4; one goes on from 2, up to 3; three go on from 2 again. Two resumes trained nothing."""
    ranks: dict[int, list[Line]] = {
        0: [(1, 0, [0]), (2, 0, [2]), (3, 0, [4]), (4, 0, [6]), (3, 2, [4, 5]), (3, 5, [5]), (4, 5, [7])],
        1: [(1, 0, [1]), (2, 0, [3]), (3, 0, [5]), (4, 0, [7]), (3, 5, [4]), (4, 5, [6])],
        2: [(3, 5, []), (4, 5, [])],
    }
    kept = {1: [0, 1], 2: [2, 3], 3: [4, 5], 4: [6, 7]}
    run = write_run(tmp_path, ranks, kept, resumes=[(1, 2), (2, 2), (4, 2), (5, 2)])
    assert history(run) == {1: {0: [0], 1: [1]}, 2: {0: [2], 1: [3]}, 3: {0: [5], 1: [4], 2: []}, 4: {0: [7], 1: [6], 2: []}}
    assert replayed(run) == 3
    prove_exactly_once(run)


def test_a_rank_that_is_there_no_more_does_not_count_where_the_others_went_back(tmp_path: Path) -> None:
    ranks = {0: [(1, 0, [0]), (1, 1, [0, 1])], 1: [(1, 0, [1])]}
    run = write_run(tmp_path, ranks, {1: [0, 1]}, resumes=[(1, 0)])
    assert history(run) == {1: {0: [0, 1]}}
    prove_exactly_once(run)


def test_a_later_resume_may_go_back_further_than_an_earlier_one(tmp_path: Path) -> None:
    ranks = {0: [(1, 0, [0]), (2, 0, [1]), (3, 0, [2]), (3, 1, [2]), (2, 2, [1]), (3, 2, [2])]}
    run = write_run(tmp_path, ranks, {1: [0], 2: [1], 3: [2]}, resumes=[(1, 2), (2, 1)])
    assert replayed(run) == 3
    prove_exactly_once(run)


def test_a_resume_that_trained_nothing_cuts_off_all_the_same(tmp_path: Path) -> None:
    run = write_run(tmp_path, resumes=[(1, 2)])
    assert list(history(run)) == [1, 2]
    with pytest.raises(LedgerError, match="step 4: its samples were written, but it is in no ledger"):
        prove_exactly_once(run)


@st.composite
def runs(draw: st.DrawFn) -> tuple[dict[int, list[Line]], dict[int, list[int]], list[tuple[int, int]], int]:
    """A run that was interrupted some times: its ledgers, samples, resumes, and how many steps were trained again."""
    steps = draw(st.integers(1, 8))
    kept = {step: list(range(10 * step, 10 * step + draw(st.integers(0, 5)))) for step in range(1, steps + 1)}
    ranks: dict[int, list[Line]] = {rank: [] for rank in range(3)}
    resumes: list[tuple[int, int]] = []
    done, incarnation, again = 0, 0, 0
    for _ in range(draw(st.integers(0, 4))):
        end = draw(st.integers(done, steps))
        _train(draw(st.integers(1, 3)), kept, range(done + 1, end + 1), incarnation, ranks)
        done = draw(st.integers(0, end))
        incarnation += draw(st.integers(1, 3))
        resumes.append((incarnation, done))
    _train(draw(st.integers(1, 3)), kept, range(done + 1, steps + 1), incarnation, ranks)
    kept = {step: ids for step, ids in kept.items() if ids}
    again = len(ranks[0]) - len(kept)
    return ranks, kept, resumes, again


def _train(world: int, kept: dict[int, list[int]], steps: range, incarnation: int, ranks: dict[int, list[Line]]) -> None:
    for step in steps:
        if kept[step]:
            for rank in range(world):
                ranks[rank].append((step, incarnation, kept[step][rank::world]))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    return lambda: tmp_path_factory.mktemp("run")


PROPERTY = settings(deadline=None, derandomize=True, max_examples=100)


@PROPERTY
@given(run=runs())
def test_however_often_a_run_was_interrupted_its_history_is_each_sample_once(folders: Callable[[], Path], run: Any) -> None:
    ranks, kept, resumes, again = run
    folder = write_run(folders(), ranks, kept, resumes)
    found = {step: sorted(i for ids in of_ranks.values() for i in ids) for step, of_ranks in history(folder).items()}
    assert found == kept
    assert replayed(folder) == again
    prove_exactly_once(folder)


@PROPERTY
@given(run=runs(), data=st.data())
def test_a_line_that_is_lost_or_doubled_is_noticed_if_it_counts(folders: Callable[[], Path], run: Any, data: Any) -> None:
    ranks, kept, resumes, _ = run
    lines = [(rank, i) for rank, of_rank in ranks.items() for i, line in enumerate(of_rank) if line[2]]
    if not lines:
        return
    rank, i = data.draw(st.sampled_from(lines))
    step, incarnation, _ids = line = ranks[rank][i]
    counts = all(step <= from_step for later, from_step in resumes if later > incarnation)
    times = data.draw(st.sampled_from([0, 2]))
    ranks = ranks | {rank: [*ranks[rank][:i], *[line] * times, *ranks[rank][i + 1 :]]}
    folder = write_run(folders(), ranks, kept, resumes)
    if counts:
        with pytest.raises(LedgerError, match=f"step {step}: "):
            prove_exactly_once(folder)
    else:
        prove_exactly_once(folder)


def changed(rank: int, i: int, *lines: Line) -> dict[int, list[Line]]:
    """RANKS with line ``i`` of a rank replaced."""
    return RANKS | {rank: [*RANKS[rank][:i], *lines, *RANKS[rank][i + 1 :]]}


def swapped() -> dict[int, list[Line]]:
    first, second, *rest = RANKS[0]
    return RANKS | {0: [(1, 0, second[2]), (2, 0, first[2]), *rest]}


@pytest.mark.parametrize(
    ("ranks", "kept", "expected"),
    [
        (changed(0, 1), KEPT, r"step 2: never trained on were samples \[4, 5\]"),
        ({0: RANKS[0]}, KEPT, r"step 1: never trained on were samples \[1, 3\]"),
        ({rank: lines[1:] for rank, lines in RANKS.items()}, KEPT, "step 1: its samples were written, but it is in no ledger"),
        ({rank: lines[:-1] for rank, lines in RANKS.items()}, KEPT, "step 4: its samples were written, but it is in no ledger"),
        (changed(1, 1, (2, 0, [6, 5])), KEPT, r"step 2: more than once was trained on each of samples \[5\]"),
        (changed(1, 1, (2, 0, [6, 6])), KEPT, r"step 2: more than once was trained on each of samples \[6\]"),
        (changed(1, 1, *[(2, 0, [6])] * 2), KEPT, r"step 2: more than once was trained on each of samples \[6\]"),
        (changed(1, 1, (2, 0, [6, 7])), KEPT, r"step 2: trained on were samples \[7\], which were not kept for it"),
        (changed(1, 1, (2, 0, [7])), KEPT, r"step 2: never trained on were samples \[6\]"),
        (swapped(), KEPT, r"step 1: never trained on were samples \[0, 2\]"),
        (changed(1, 2, (4, 0, [9, 10]), (5, 0, [])), KEPT, "step 5: it is in the ledgers, but its samples were not written"),
        (RANKS, {1: KEPT[1], 4: KEPT[4]}, "step 2: it is in the ledgers, but its samples were not written"),
        (RANKS, KEPT | {3: [7]}, "step 3: its samples were written, but it is in no ledger"),
        (RANKS, KEPT | {3: []}, "step 3: its samples were written, but it is in no ledger"),
        (RANKS, KEPT | {2: [4, 5, 6, 6]}, r"step 2: more than once is in its samples file each of samples \[6\]"),
        (changed(0, 2, (4, 0, [8, 0])), KEPT | {4: [0, 8, 9, 10]},
         r"step 4: trained on again were samples \[0\], the first one also in step 1"),
        (changed(0, 0, (0, 0, [0, 2])), KEPT, "step 0: a run's first step is 1"),
    ],
)  # fmt: skip
def test_whatever_is_not_exactly_once_is_named_with_its_step(
    tmp_path: Path, ranks: dict[int, list[Line]], kept: dict[int, list[int]], expected: str
) -> None:
    with pytest.raises(LedgerError, match=expected):
        prove_exactly_once(write_run(tmp_path, ranks, kept))


def test_a_step_that_two_incarnations_trained_without_a_rollback_is_twice_trained(tmp_path: Path) -> None:
    ranks = {0: [(1, 0, [0]), (2, 0, [1]), (2, 1, [1])]}
    with pytest.raises(LedgerError, match="step 2: more than once was trained on"):
        prove_exactly_once(write_run(tmp_path, ranks, {1: [0], 2: [1]}, resumes=[(1, 2)]))
