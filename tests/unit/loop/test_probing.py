"""The adaptive weighting in a run: what is asked of the teachers, when it counts, and what a resumed run makes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from renio_pipeline.config import parse
from renio_pipeline.in_process.weighting import InProcessWeighting
from renio_pipeline.loop import stranded
from renio_pipeline.loop.probing import Probing
from renio_pipeline.loop.run import Run
from renio_pipeline.metrics.registry import METRICS
from renio_pipeline.metrics.sink import read_jsonl
from renio_pipeline.preflight import Prepared
from renio_pipeline.run_dir.checkpoint_files import THE_START, RunState, newest
from renio_pipeline.run_dir.resume import resume_point
from renio_pipeline.stages.faults import KillsWorkers
from renio_pipeline.types import Continuation, ContinuationRequest
from tests.fakes.stages import EOS, FakeTeachers, Notes, config_of, prepared, run_with, stages_of

__all__ = ["prepared"]  # a fixture
WEIGHTING: dict[str, Any] = {"type": "adaptive", "every": 1, "probes": 2, "share": 4.0, "move": 0.5, "suffix_from": 0.7}
CHANGES: dict[str, Any] = {"steps": 5, "batch_size": 6, "checkpoint": {"every": 2}}


@dataclass
class WritingTeachers(FakeTeachers):
    """Answers correctly after one token of a response. After two, of which the second is pivotal, only if it ``recovers``, and
    never once a wrong answer has begun: from half of the fakes' wrong responses, which are ``#1000000`` and ``3+4``."""

    prepared: Any = None
    recovers: bool = False
    seconds: float = 0.0  # that a call takes
    error: Exception | None = None
    calls: list[list[ContinuationRequest]] = field(default_factory=list)
    writing: int = 0  # calls that have not returned

    async def write(self, requests: Sequence[ContinuationRequest]) -> list[list[Continuation]]:
        self.calls.append(list(requests))
        self.writing += 1
        await asyncio.sleep(self.seconds)
        self.writing -= 1
        if self.error is not None:
            raise self.error
        return [[self._text(r)] for r in requests]

    def _text(self, request: ContinuationRequest) -> Continuation:
        asked = self.prepared.tokenizer.decode(request.prompt_ids)
        problem, begun = asked[: asked.index(":") + 1], asked[asked.index(":") + 1 :]
        answer = next(row.answer for row in self.prepared.rows if problem.startswith(row.problem))
        text = {"#": answer, "3": f"#{answer}", "3+": f"#{answer if self.recovers else 0}"}.get(begun, "1")
        return Continuation(
            token_ids=np.array(self.prepared.tokenizer(text)["input_ids"] + [EOS], np.int32), stop_reason="stop"
        )


def run_of(
    folder: Path, prepared: Prepared, state: RunState = THE_START, *, writing: Any = None, staleness: int = 0, **keys: Any
) -> Run:
    config = config_of(run_dir=str(folder), **CHANGES, max_staleness=staleness, weighting=WEIGHTING | keys)
    stages = stages_of(prepared, config)
    stages.teachers = WritingTeachers(prepared=prepared, **writing or {})
    stages.weighting = InProcessWeighting(config, state.weighting)
    return run_with(prepared, config, stages, state)


def done(run: Run) -> list[dict[str, float]]:
    """Run it; the lines of its metrics that do not depend on time."""

    async def within() -> None:
        async with asyncio.timeout(60):
            await run.run()

    asyncio.run(within())
    lines = read_jsonl(run.directory.metrics)
    return [{k: v for k, v in line.items() if not k.startswith(("time/", "idle/", "memory/"))} for line in lines]


def moves(lines: list[dict[str, float]]) -> list[tuple[float, float]]:
    return [(line["adaptive/strength"], line["adaptive/after_pivotal"]) for line in lines]


def notes_of(run: Run) -> list[str]:
    assert isinstance(run.progress, Notes)
    return run.progress.notes


def test_a_teacher_that_does_not_recover_takes_the_loss_after_pivotal_tokens_away(tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path / "run", prepared)
    lines = done(run)
    assert moves(lines) == [(0, 1), (0, 1), (0, 0.5), (0, 0), (0, 0)]
    assert lines[0]["weights/token_factor_mean"] == 1 > lines[-1]["weights/token_factor_mean"]
    assert lines[-1]["adaptive/recovery"] == 0
    assert {name for line in lines for name in line if name.startswith("adaptive/")} <= METRICS.keys()
    told = [note for note in notes_of(run) if "the weighting moves" in note]
    assert [note.partition(":")[0] for note in told] == [
        "after step 2 the weighting moves γ 1 → 0.5",
        "after step 3 the weighting moves γ 0.5 → 0",
    ]


def test_a_teacher_that_recovers_brings_the_weights(tmp_path: Path, prepared: Prepared) -> None:
    lines = done(run_of(tmp_path / "run", prepared, writing={"recovers": True}))
    assert moves(lines) == [(0, 1), (0, 1), (0.5, 1), (1, 1), (1, 1)]
    assert lines[0]["weights/max"] == 1 < lines[-1]["weights/max"]
    assert lines[-1]["adaptive/recovery"] == 0.5


@pytest.mark.parametrize("staleness", [0, 2])
def test_how_long_the_teacher_takes_changes_nothing(tmp_path: Path, prepared: Prepared, staleness: int) -> None:
    def found(seconds: float) -> list[dict[str, float]]:
        lines = done(run_of(tmp_path / f"{seconds}", prepared, writing={"seconds": seconds}, staleness=staleness))
        return [{k: v for k, v in line.items() if k != "staleness/max"} for line in lines]  # the fakes' schedule is its own

    assert found(0.0) == found(0.05)


@pytest.mark.parametrize("keys", [{}, {"normalization": "ema"}, {"every": 2}], ids=["plain", "ema", "every"])
def test_a_run_that_failed_resumes_digit_for_digit(tmp_path: Path, prepared: Prepared, keys: dict[str, Any]) -> None:
    whole = run_of(tmp_path / "whole", prepared, **keys)
    expected = done(whole)
    broken = run_of(tmp_path / "run", prepared, **keys)
    train = broken.stages.trainers.train

    async def failing(batch: Any) -> Any:
        if batch.step == 4:
            raise RuntimeError("out of memory")
        return await train(batch)

    broken.stages.trainers.train = failing  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="out of memory"):
        done(broken)
    point = resume_point(broken.config)
    assert point.state.step == 2
    again = run_of(tmp_path / "run", prepared, point.state, **keys)
    assert done(again) == expected
    ends = [newest(run.directory.checkpoints) for run in (whole, again)]
    states = [json.dumps(end[1].weighting, sort_keys=True) for end in ends if end is not None]
    assert states[0] == states[1]
    assert len(states) == 2


def test_continuations_are_bounded_by_the_share_of_the_scored_tokens_and_depend_on_no_order(
    tmp_path: Path, prepared: Prepared
) -> None:
    run = run_of(tmp_path / "run", prepared, share=1.0)
    lines = done(run)
    calls = run.stages.teachers.calls  # type: ignore[attr-defined]
    assert len(calls) == 5
    for line, call in zip(lines, calls, strict=True):
        assert 0 < sum(r.max_tokens * r.n for r in call) <= 1.0 * line["tokens/scored"]
        assert all(r.temperature == run.config.temperature for r in call)
    shares = [line["adaptive/share"] for line in lines[1:]]
    assert all(0 < share <= 1 for share in shares)


def test_a_share_too_small_for_one_prefix_is_told_once_and_moves_nothing(tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path / "run", prepared, share=0.1)
    assert moves(done(run)) == [(0, 1)] * 5
    assert len([note for note in notes_of(run) if "weighting.share (0.1) is too small" in note]) == 1
    assert run.stages.teachers.calls == []  # type: ignore[attr-defined]


def test_a_request_that_kills_the_teachers_costs_its_evidence_and_not_the_run(tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path / "run", prepared, writing={"error": KillsWorkers("pool teacher: a text")})
    assert moves(done(run)) == [(0, 1)] * 5
    assert len([note for note in notes_of(run) if "learns nothing from this step: pool teacher" in note]) == 5


def test_a_teacher_that_fails_ends_the_run(tmp_path: Path, prepared: Prepared) -> None:
    with pytest.raises(RuntimeError, match="the engine refused"):
        done(run_of(tmp_path / "run", prepared, writing={"error": RuntimeError("the engine refused")}))


def test_a_pause_waits_for_the_teacher_and_lets_a_checkpoint_be_written(tmp_path: Path, prepared: Prepared) -> None:
    """Otherwise the checkpoint would wait for a text that a paused pool does not hand out."""
    run = run_of(tmp_path / "run", prepared, writing={"seconds": 0.2})

    async def go() -> None:
        running = asyncio.create_task(run.run())
        while not run.step:
            await asyncio.sleep(0.01)
        await run.pause.begin()
        before = len(run.stages.teachers.calls)  # type: ignore[attr-defined]
        assert run.pause.complete
        folders = [folder for _, folder in await asyncio.gather(run.ask_checkpoint(), run.ask_checkpoint())]
        assert None not in folders
        assert len(run.stages.teachers.calls) == before  # type: ignore[attr-defined]
        await run.pause.end()
        await running

    async def within() -> None:
        async with asyncio.timeout(60):
            await go()

    asyncio.run(within())
    assert run.step == 5


def test_a_stop_waits_for_no_evidence_of_teachers_that_have_no_node(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stranded, "PATIENCE_SECONDS", 0.1)
    run = run_of(tmp_path / "run", prepared, writing={"seconds": 1000})
    score = run.stages.teachers.score

    async def lost_after_the_first(rollouts: Any, step: int) -> Any:
        if step > 1:
            run.stop.request()
            await asyncio.Event().wait()
        return await score(rollouts, step)

    run.stages.teachers.score = lost_after_the_first
    gone = {"target": 2, "serving": 0, "starting": 0, "waiting": 2, "queue": 6, "in_flight": 0, "restarts": 2}
    run.stages.pools = {"teacher": SimpleNamespace(status=lambda: gone)}
    with pytest.raises(SystemExit):
        done(run)
    assert run.stages.teachers.writing == 1, "no evidence was under way"
    assert [folder.name for folder in run.directory.checkpoints.glob("step_*")] == ["step_000001"]


def test_evidence_counts_once_whoever_takes_it_in(tmp_path: Path, prepared: Prepared) -> None:
    """A checkpoint that is asked for in a pause may meet the step that begins as the pause ends."""
    run = run_of(tmp_path / "run", prepared, writing={"seconds": 0.02})
    take_in = run._probing.take_in

    async def twice() -> None:
        await asyncio.gather(take_in(), take_in())

    run._probing.take_in = twice  # type: ignore[method-assign]
    assert done(run) == done(run_of(tmp_path / "other", prepared))


@pytest.mark.parametrize(("method", "before"), [({"type": "opd"}, False), ({"type": "opsd", "teacher": "latest"}, True)])
def test_a_teacher_that_follows_has_written_before_its_weights_change(
    tmp_path: Path, prepared: Prepared, method: dict[str, Any], before: bool
) -> None:
    run = run_of(tmp_path / "run", prepared, writing={"seconds": 0.02})
    teacher = run.config.teacher.model_copy(update={"model": None if method["type"] == "opsd" else run.config.teacher.model})
    config = parse(run.config.model_dump() | {"method": method, "teacher": teacher.model_dump(), "weighting": WEIGHTING})
    run.config, run._probing = config, Probing(config, run.stages, run._grader.judge, context=prepared.context)
    publish, seen = run.stages.trainers.publish, []
    teachers: Any = run.stages.teachers

    async def watched(version: Any) -> Any:
        seen.append(len(teachers.calls) - teachers.writing == version.number)
        return await publish(version)

    run.stages.trainers.publish = watched  # type: ignore[method-assign]
    done(run)
    assert seen == [True] + [before] * 5  # the first one is before any step


def test_the_signal_scores_asks_the_teacher_for_nothing(tmp_path: Path, prepared: Prepared) -> None:
    """The fakes' log-probabilities are the same on both sides of the pivotal token: no fall."""
    run = run_of(tmp_path / "run", prepared, signal="scores", fall=0.1, weights_from=0.2, suffix_from=0.3)
    lines = done(run)
    assert moves(lines) == [(0, 1), (0, 1), (0.5, 1), (1, 1), (1, 1)]
    assert run.stages.teachers.calls == []  # type: ignore[attr-defined]
