"""What a run was trained on, from the ledgers of its trainer ranks, and the proof that it was each sample exactly once.

A ledger is never cut: after a rollback it also has lines of steps that were trained again, or of ranks that no longer exist.
The lines of a restart epoch count up to the step that each later epoch resumed after; those that count are the final history.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from renio_pipeline.run_dir.batches import FILE as BATCHES
from renio_pipeline.run_dir.batches import step_files
from renio_pipeline.run_dir.json_lines import complete_lines
from renio_pipeline.run_dir.ledger_files import ledgers

History = dict[int, dict[int, list[int]]]  # step -> rank -> sample ids


class LedgerError(RuntimeError):
    """The ledgers do not show that every sample was trained on exactly once. The text names the step."""


class _Line(NamedTuple):
    rank: int
    step: int
    sample_ids: list[int]
    counts: bool  # the step was not rolled back past


def history(run_dir: Path) -> History:
    """What the run's present weights were trained on, in the order of steps and ranks.

    A rank that has a step twice, which is an error, is shown with the sample ids of both.
    """
    found: History = {}
    for line in sorted(_lines(run_dir), key=lambda line: (line.step, line.rank)):
        if line.counts:
            found.setdefault(line.step, {}).setdefault(line.rank, []).extend(line.sample_ids)
    return found


def replayed(run_dir: Path) -> int:
    """How many steps were trained and then rolled back past, each time counted."""
    return sum(line.rank == 0 and not line.counts for line in _lines(run_dir))


def prove_exactly_once(run_dir: Path) -> None:
    """Compare the final history of a run that has ended with ``samples/step_*.jsonl``, packed or not, and ``batches.jsonl``.

    Raises:
        LedgerError: a step is missing; or a sample that was kept for a step was not trained on in it, or twice, or in another
            one; or one was trained on that was not kept. A step that is in neither is one whose filter kept nothing.
    """
    trained = {step: [i for ids in ranks.values() for i in ids] for step, ranks in history(run_dir).items()}
    kept = dict(_kept(run_dir))
    for step in sorted(trained.keys() | kept.keys()):
        _check_step(step, trained, kept)
    _check_across(trained)


def _check_step(step: int, trained: Mapping[int, list[int]], kept: Mapping[int, list[int]]) -> None:
    if step < 1:
        raise LedgerError(f"step {step}: a run's first step is 1")
    if step not in trained:
        raise LedgerError(f"step {step}: its samples were written, but it is in no ledger")
    if step not in kept:
        raise LedgerError(f"step {step}: it is in the ledgers, but its samples were not written")
    for where, ids in (("was trained on", trained[step]), ("is in its samples file", kept[step])):
        if twice := _repeated(ids):
            raise LedgerError(f"step {step}: more than once {where} each of samples {twice}")
    if missing := sorted(set(kept[step]) - set(trained[step])):
        raise LedgerError(f"step {step}: never trained on were samples {missing}")
    if foreign := sorted(set(trained[step]) - set(kept[step])):
        raise LedgerError(f"step {step}: trained on were samples {foreign}, which were not kept for it")


def _check_across(trained: Mapping[int, list[int]]) -> None:
    first: dict[int, int] = {}  # sample id -> step
    for step, ids in trained.items():
        if again := sorted(i for i in ids if i in first):
            raise LedgerError(
                f"step {step}: trained on again were samples {again}, the first one also in step {first[again[0]]}"
            )
        first.update(dict.fromkeys(ids, step))


def _repeated(ids: Iterable[int]) -> list[int]:
    return sorted(i for i, count in Counter(ids).items() if count > 1)


def _lines(run_dir: Path) -> Iterator[_Line]:
    resumes = [(r["incarnation"], r["from_step"]) for r in complete_lines(run_dir / "resumes.jsonl")]
    for rank, path in ledgers(run_dir / "ledger"):
        for line in complete_lines(path):
            step, incarnation = line["step"], line["incarnation"]
            counts = all(step <= from_step for later, from_step in resumes if later > incarnation)
            yield _Line(rank, step, line["sample_ids"], counts)


def _kept(run_dir: Path) -> Iterator[tuple[int, list[int]]]:
    """Each step that trained, and the sample ids that its filter kept: by its file, or where that was dropped by its line."""
    files = step_files(run_dir)
    for step, path in files.items():
        yield step, [line["sample_id"] for line in complete_lines(path)]
    for line in complete_lines(run_dir / BATCHES):
        if line["step"] not in files:
            yield line["step"], line["sample_ids"]
