"""Generators beside the trainer ranks, on real engines: they never work at the same time, although one of each is killed in
the ranks' turn. That the run is the one that it would be apart, digit for digit: ``test_resume.py``.

On a CPU an engine that sleeps keeps its memory; the turns, the placement and all else are as on a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from tests.ray.broken import Broken
from tests.ray.runs import STEPS, lines_of


@pytest.mark.timeout(1200)
def test_a_generator_and_a_rank_that_are_killed_in_the_ranks_turns_are_replaced_and_it_goes_on(broken_run: Broken) -> None:
    watch, strikes = broken_run.watch, broken_run.strikes
    assert strikes.left == []
    assert strikes.loaded_meanwhile == 0, "it must not load in the ranks' turn"
    assert watch.steps == [*range(strikes.first, strikes.second + 1), *range(strikes.second, STEPS + 1)]
    assert (watch.pool.workers.restarts, watch.trainers.restarts) == (1, 1)
    assert lines_of(broken_run.folder / "resumes.jsonl")[-1] == {"incarnation": 3, "from_step": strikes.second - 1}
    again = [note for note in broken_run.notes if f"all ranks restart after step {strikes.second - 1}" in note]
    assert len(again) == 1
    others = [note for note in broken_run.notes if note not in again and not note.startswith("checkpoint ")]
    assert all("generator" in note for note in others), others


@pytest.mark.timeout(1200)
def test_what_was_in_host_memory_is_in_the_checkpoint(broken_run: Broken, whole_run: Path) -> None:
    from actors.trainer.checkpoint_writer import WriterEngine

    read = WriterEngine(None).load  # type: ignore[arg-type]
    for name in [p.name for p in (whole_run / "checkpoints/step_000006/deepspeed/state").iterdir()]:
        found, expected = (read(f / "checkpoints/step_000006/deepspeed/state" / name) for f in (broken_run.folder, whole_run))
        assert _same(found, expected), name


def _same(found: Any, expected: Any) -> bool:
    """Nested dicts and lists alike, of tensors with the same bits."""
    if hasattr(expected, "untyped_storage"):
        return np.array_equal(found.view(-1).numpy(), expected.view(-1).numpy())
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(_same(found[key], expected[key]) for key in expected)
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(_same, found, expected))
    return type(found) is type(expected) and (not isinstance(expected, (int, float, str)) or found == expected)


def test_no_engine_made_a_step_while_the_ranks_trained(broken_run: Broken) -> None:
    watch = broken_run.watch
    steps = STEPS - broken_run.stopped_after
    assert len(watch.worked_before) == steps > 2
    assert watch.worked_before == watch.worked_after
    between = np.diff(watch.worked_before)[1:]  # after the first step another generator counts from nothing
    assert (between > 0).all(), "they did not work at all: the test tests nothing"
    assert watch.serving == [1, *[2] * (steps - 1)]
    assert len(watch.refusals) == sum(watch.serving)
    assert all("the engine sleeps" in text for text in watch.refusals)


def test_a_generator_and_a_rank_share_a_bundle_that_ends_with_the_run(broken_run: Broken) -> None:
    (shared,) = [g for g in broken_run.groups if len(g["bundles"]) == 2]
    assert list(shared["bundles"].values()) == [{"CPU": 0.5}] * 2
    left = [g for g in ray.util.placement_group_table().values() if g["state"] == "CREATED"]
    assert left == []
