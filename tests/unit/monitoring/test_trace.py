"""trace.json: rows, spans, arrows, bounds, and what it costs a step."""

from __future__ import annotations

import asyncio
import json
import time
import weakref
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.monitoring.spans import outside, union
from renio_pipeline.monitoring.trace import Trace
from renio_pipeline.preflight import Prepared
from renio_pipeline.stages.outcomes import SkippedStep, StepResult
from tests.fakes.stages import BATCH, config_of, prepared, run_of, stages_of, step_of

__all__ = ["prepared"]  # a fixture


def placed(
    result: StepResult, number: int, origin: float, *, replicas: int = 2, overlap: float = 0.0, copies: int = 1
) -> StepResult:
    """Step ``number`` with times: written in the first second, a sample every tenth; scored, weighed, trained and published in
    the four after it. ``overlap``: that many seconds of the writing fall into the step before."""
    start = origin + 5.0 * number
    judged, scored, shares = {}, [], [list[int](), list[int]()]
    for i, s in enumerate(result.scored * copies):
        sample_id = number * len(result.scored) * copies + i
        sent = start - overlap + 0.1 * (i % 5)
        rollout = replace(
            s.rollout,
            replica=str(i % replicas),
            times=(sent, start + 0.2 + 0.1 * (i % 8)),
            prompt=replace(s.rollout.prompt, sample_id=sample_id),
        )
        scores = replace(
            s.scores, sample_id=sample_id, replica=f"maths/{i % replicas}", times=(start + 1.0 + 0.01 * (i % 3), start + 2.0)
        )
        judged[sample_id] = replace(result.judged[s.rollout.sample_id], rollout=rollout)
        scored.append(replace(s, rollout=rollout, scores=scores))
        shares[i % 2].append(sample_id)
    spans = {"weigh": (start + 2, start + 2.5), "train": (start + 2.5, start + 4), "sync": (start + 4, start + 4.5)}
    report = replace(result.report, busy_seconds=[1.0, 1.4], shares=shares)
    return replace(result, step=number, judged=judged, scored=scored, spans=spans, report=report)


def one_step(prepared: Prepared) -> StepResult:
    config = config_of()
    return asyncio.run(step_of(prepared, config, stages_of(prepared, config)))


def traced(path: Path, results: list[Any], steps: int = 20) -> list[dict[str, Any]]:
    trace = Trace(path, steps)
    for result in results:
        trace.observe(result)
    trace.close()
    return list(json.loads(path.read_text())["traceEvents"])


def rows(events: list[dict[str, Any]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    found = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            found[event["pid"], event["tid"]].append(event)
    return {row: sorted(slices, key=lambda e: e["ts"]) for row, slices in found.items()}


def names(events: list[dict[str, Any]], what: str) -> dict[tuple[int, int], str]:
    return {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == what}


def arrows(events: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    found = defaultdict(list)
    for event in events:
        if event["ph"] in "stf":
            found[event["id"]].append(event)
    yield from found.values()


def around(event: dict[str, Any], slices: list[dict[str, Any]]) -> list[str]:
    """The slices of its row that an arrow's end lies in."""
    return [s["name"] for s in slices if s["ts"] <= event["ts"] < s["ts"] + s["dur"]]


def check_sound(events: list[dict[str, Any]]) -> None:
    found = rows(events)
    for slices in found.values():
        for before, after in pairwise(slices):
            assert before["ts"] + before["dur"] <= after["ts"] + 1, "a row shows two things at a time"
    for arrow in arrows(events):
        assert [e["ph"] for e in arrow] == ["s", "t", "t", "f"]
        assert [e["ts"] for e in arrow] == sorted(e["ts"] for e in arrow), "a sample cannot go back in time"
        stops = [around(e, found[e["pid"], e["tid"]]) for e in arrow]
        assert stops == [["generate"], ["score"], ["weigh"], ["train"]]


def test_there_is_a_row_for_each_replica_and_rank_and_each_sample_has_its_way(tmp_path: Path, prepared: Prepared) -> None:
    step = one_step(prepared)
    origin = time.perf_counter()
    events = traced(tmp_path / "t.json", [placed(step, n, origin) for n in (1, 2)])
    check_sound(events)
    assert sorted(names(events, "thread_name").values()) == [
        "generator 0",
        "generator 1",
        "rank 0",
        "rank 1",
        "teacher.maths 0",
        "teacher.maths 1",
        "weighting 0",
    ]
    assert set(names(events, "process_name").values()) == {"generator", "teacher.maths", "weighting", "trainer"}
    named = names(events, "thread_name")
    by_row = {named[row]: [s["name"] for s in slices] for row, slices in rows(events).items()}
    assert by_row["generator 1"] == ["generate"] * 2
    assert by_row["teacher.maths 0"] == ["score"] * 2
    assert by_row["rank 1"] == ["train", "sync"] * 2
    assert by_row["weighting 0"] == ["weigh"] * 2
    ways = {a[0]["args"]["sample_id"]: [named[e["pid"], e["tid"]] for e in a] for a in arrows(events)}
    assert sorted(ways) == list(range(BATCH, 3 * BATCH))
    assert ways[BATCH + 3] == ["generator 1", "teacher.maths 1", "weighting 0", "rank 1"]
    train = [e for e in events if e["ph"] == "X" and e["name"] == "train" and e["args"]["step"] == 1]
    assert [e["dur"] for e in train] == pytest.approx([1_000_000, 1_400_000], abs=2)
    assert sum(e["args"]["samples"] for e in train) == BATCH


def test_steps_that_overlap_share_their_rows(tmp_path: Path, prepared: Prepared) -> None:
    step, origin = one_step(prepared), time.perf_counter()
    events = traced(tmp_path / "t.json", [placed(step, n, origin, overlap=4.5) for n in (1, 2, 3)])
    check_sound(events)
    assert len(list(arrows(events))) == 3 * BATCH


def test_the_last_steps_alone_are_kept(tmp_path: Path, prepared: Prepared) -> None:
    step, origin = one_step(prepared), time.perf_counter()
    events = traced(tmp_path / "t.json", [placed(step, n, origin) for n in range(1, 31)], steps=4)
    assert {e["args"]["step"] for e in events if e["ph"] == "X"} == {27, 28, 29, 30}
    size = (tmp_path / "t.json").stat().st_size
    traced(tmp_path / "few.json", [placed(step, n, origin) for n in range(1, 5)], steps=4)
    assert size < 1.1 * (tmp_path / "few.json").stat().st_size


def test_a_step_that_kept_nothing_shows_who_wrote(tmp_path: Path, prepared: Prepared) -> None:
    step = placed(one_step(prepared), 1, time.perf_counter())
    events = traced(tmp_path / "t.json", [SkippedStep(step=1, judged=step.judged, seconds={})])
    assert {e["name"] for e in events if e["ph"] == "X"} == {"generate"}


def test_a_run_writes_its_trace_whole_and_a_disk_that_is_full_does_not_end_it(tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path, prepared)
    path = run.directory.path / "trace.json"
    nowhere = Trace(tmp_path / "no such folder" / "trace.json", 3)
    run.sinks = [*run.sinks, Trace(path, 2), nowhere]
    asyncio.run(run.run())
    assert {e["args"]["step"] for e in json.loads(path.read_text())["traceEvents"] if e["ph"] == "X"} == {2, 3}
    assert [p.name for p in path.parent.iterdir() if "aside" in p.name] == []


def test_a_step_of_512_samples_waits_for_its_trace_less_than_a_millisecond(tmp_path: Path, prepared: Prepared) -> None:
    result = placed(one_step(prepared), 1, time.perf_counter(), replicas=8, copies=86)
    assert len(result.scored) > 512
    trace = Trace(tmp_path / "t.json", 20)
    took = []
    for _ in range(20):
        began = time.perf_counter()
        trace.observe(result)
        took.append(time.perf_counter() - began)
        time.sleep(0.02)
    trace.close()
    assert np.median(took) < 0.001
    assert (tmp_path / "t.json").stat().st_size < 20e6


class Payload:
    """In the place of a reference to the object store."""


def test_a_steps_payload_is_let_go_before_the_next_step(tmp_path: Path, prepared: Prepared) -> None:
    result = placed(one_step(prepared), 1, time.perf_counter())
    payload = Payload()
    alive = weakref.ref(payload)
    scored = [replace(s, scores=replace(s.scores, payload=payload)) for s in result.scored]
    trace = Trace(tmp_path / "t.json", 20)
    trace.observe(replace(result, scored=scored))
    del payload, scored
    end = time.monotonic() + 5
    while alive() is not None and time.monotonic() < end:
        time.sleep(0.01)
    assert alive() is None
    trace.close()


intervals = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)).map(lambda t: (t[0], t[0] + t[1])), max_size=12)


@settings(deadline=None)
@given(intervals, intervals)
def test_what_is_laid_beside_others_covers_what_they_leave_and_no_more(new: list[Any], old: list[Any]) -> None:
    taken = union(old)
    pieces = [piece for span in union(new) for piece in outside(span, taken)]
    cells = lambda spans: [c for start, end in spans for c in range(int(start), int(end))]  # noqa: E731
    assert sorted(cells(pieces)) == sorted(set(cells(new)) - set(cells(old)))
