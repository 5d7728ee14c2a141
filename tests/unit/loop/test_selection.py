"""Filtering by verdict, and the step that trains on what is left. The stages are fakes, in this process."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.config import ConfigError
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.grading.grader import Grader, Judged
from renio_pipeline.loop.run import Run
from renio_pipeline.loop.selection import MOST_DRAWN, Selection
from renio_pipeline.loop.step import train_step
from renio_pipeline.metrics.registry import METRICS
from renio_pipeline.metrics.sink import read_jsonl
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.stages.outcomes import SkippedStep, StepResult
from renio_pipeline.types import Rollout
from tests.fakes.stages import BATCH, FIRST, KINDS, config_of, kind, run_of, stages_of
from tests.unit.conftest import make_config


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(config_of())


async def judge(rollout: Rollout) -> Judged:
    return Judged(rollout=rollout, text="", verdict=kind(rollout.sample_id))


def step(prepared: Prepared, judge: Any = judge, **changes: Any) -> tuple[Any, Any, Cursor]:
    config = config_of(**changes)
    stages, cursor = stages_of(prepared, config), Cursor(prepared.prompt_ids, prepared.rows, config)
    selection = Selection(config, cursor.take, judge)
    return asyncio.run(train_step(stages, config, selection, 1, FIRST)), stages, cursor


def trained(stages: Any) -> list[int]:
    return [s.sample_id for batch in stages.trainers.batches for s in batch.samples]


@pytest.mark.parametrize(
    ("filter_by", "unfinished", "wanted"),
    [("all", False, set(KINDS)), ("correct", False, {"correct"}), ("incorrect", False, {"incorrect"}),
     ("incorrect", True, {"incorrect", "unfinished"})],
)  # fmt: skip
@pytest.mark.parametrize("batch", ["refill", "shrink"])
def test_only_samples_of_the_verdict_are_trained_on(
    prepared: Prepared, filter_by: str, unfinished: bool, wanted: set[str], batch: str
) -> None:
    result, stages, _ = step(prepared, filter=filter_by, unfinished=unfinished, filter_batch=batch)
    ids = trained(stages)
    assert {kind(i) for i in ids} == wanted
    assert ids == sorted(set(ids)) == [s.rollout.sample_id for s in result.scored]
    expected = BATCH if batch == "refill" or filter_by == "all" else sum(kind(i) in wanted for i in range(BATCH))
    assert len(ids) == expected


def test_a_refill_draws_what_is_missing_until_the_batch_is_whole(prepared: Prepared) -> None:
    result, stages, cursor = step(prepared, filter="correct")
    draws = [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9], [10, 11, 12], [13, 14], [15], [16]]
    assert [ids for ids, _ in stages.generators.calls] == draws
    assert trained(stages) == [1, 4, 7, 10, 13, 16]
    assert cursor.position == len(result.judged) == 17


def test_the_batch_size_of_a_shrunk_batch_is_what_was_kept(prepared: Prepared) -> None:
    _, stages, cursor = step(prepared, filter="correct", filter_batch="shrink")
    (batch,) = stages.trainers.batches
    assert [s.sample_id for s in batch.samples] == [1, 4]
    assert sum(s.weight for s in batch.samples) == pytest.approx(2, rel=1e-5)
    assert cursor.position == BATCH


@pytest.mark.parametrize(("batch", "draws"), [("refill", MOST_DRAWN * BATCH), ("shrink", BATCH)])
def test_a_step_that_keeps_nothing_is_skipped_and_moves_the_cursor(prepared: Prepared, batch: str, draws: int) -> None:
    async def never(rollout: Rollout) -> Judged:
        return Judged(rollout=rollout, text="", verdict="correct")

    result, stages, cursor = step(prepared, never, filter="incorrect", filter_batch=batch)
    assert isinstance(result, SkippedStep)
    assert stages.trainers.batches == stages.trainers.versions == []
    assert cursor.position == len(result.judged) == draws


def test_a_run_goes_on_after_a_skipped_step_and_its_line_says_so(tmp_path: Path, prepared: Prepared) -> None:
    verify, asked = prepared.task.verify, []

    class Gentle:
        """A task that calls everything correct in the second step."""

        name, slow = "gentle", False

        def verify(self, row: Any, text: str) -> Any:
            asked.append(row)
            return "correct" if BATCH < len(asked) <= 2 * BATCH else verify(row, text)

        def final_answer(self, text: str) -> str | None:
            return None

    gentle = replace(prepared, task=Gentle())  # type: ignore[arg-type]
    run: Run = run_of(tmp_path, gentle, filter="incorrect", filter_batch="shrink", steps=3, evaluate={"problems": 0})
    outcome = asyncio.run(run.run())
    lines = read_jsonl(run.directory.metrics)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert ["loss" in line for line in lines] == [True, False, True]
    assert [line["filter/kept"] for line in lines] == pytest.approx([1 / 3, 0, 1 / 3])
    assert [line["reward/accuracy"] for line in lines] == pytest.approx([1 / 3, 2 / 3, 1 / 3])  # what was cut is never correct
    assert all(line.keys() - {"step"} <= METRICS.keys() for line in lines)
    assert [line.get("sync/version") for line in lines] == [1, None, 2]
    assert "step 2: filter incorrect kept 0 of 6 samples: the step is skipped" in run.progress.notes
    assert trained(run.stages) == [0, 3, 12, 15]
    assert sorted(p.name for p in (run.directory.path / "samples").iterdir()) == ["step_000001.jsonl", "step_000003.jsonl"]
    assert json.loads((run.directory.path / "result.json").read_text())["auroc"] is None is outcome["auroc"]
    state = json.loads((run.directory.path / "checkpoints/step_000003/run.json").read_text())
    assert (state["version"], state["samples_drawn"]) == ([0, 2], 3 * BATCH)


def test_a_run_that_keeps_nothing_at_all_ends(tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path, prepared, filter="correct", filter_batch="shrink", batch_size=1, steps=1, evaluate={"problems": 0})
    assert kind(0) == "incorrect"
    assert asyncio.run(run.run()) == {"evaluations": {}, "auroc": None, "first_step": {}}


def test_metrics_speak_of_all_that_was_written_and_weights_of_what_was_kept(prepared: Prepared) -> None:
    from renio_pipeline.metrics.step_metrics import step_metrics

    result, _, _ = step(prepared, filter="correct")
    assert isinstance(result, StepResult)
    metrics = step_metrics(result, {"generator": 1, "teacher": 1}, {})
    written = [j.rollout for j in result.judged.values()]
    assert metrics["filter/drawn"] == 17
    assert metrics["filter/kept"] == pytest.approx(BATCH / 17)
    assert metrics["reward/accuracy"] == pytest.approx(6 / 17)
    assert metrics["tokens/generated"] == sum(len(r.token_ids) for r in written)
    assert metrics["pivotal/fraction"] == 0  # a correct fake response has no pivotal token
    assert metrics["weights/max"] == metrics["weights/min"] == 1


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=200), st.sampled_from(["refill", "shrink"]), st.integers(1, 8))
@pytest.mark.slow
def test_no_sample_is_kept_twice_and_none_of_another_verdict(verdicts: list[Any], batch: str, size: int) -> None:
    prepared = prepare(config_of())

    async def judge(rollout: Rollout) -> Judged:
        return Judged(rollout=rollout, text="", verdict=verdicts[rollout.sample_id % len(verdicts)])

    result, stages, cursor = step(prepared, judge, filter="incorrect", filter_batch=batch, batch_size=size)
    ids = trained(stages)
    assert ids == [i for i in range(cursor.position) if verdicts[i % len(verdicts)] == "incorrect"][: len(ids)]
    assert len(ids) == size or batch == "shrink" or cursor.position >= MOST_DRAWN * size
    assert isinstance(result, SkippedStep) == (not ids)


@pytest.mark.parametrize("filter_by", ["all", "correct"])
def test_unfinished_without_the_incorrect_filter_says_why_not(filter_by: str) -> None:
    with pytest.raises(ConfigError, match="unfinished: true goes with filter incorrect alone"):
        make_config(filter=filter_by, unfinished=True)


def test_a_filter_needs_an_answer_in_every_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"problem": "1+1", "answer": "2"}\n\n{"problem": "2+2"}\n')
    shared = {"task": "plain", "data": {"path": str(path)}, "evaluate": {"problems": 0}, "max_response_tokens": 16}
    prepare(make_config(**shared))
    with pytest.raises(ConfigError, match=r"filter: correct needs verdicts, and .*rows.jsonl, line 3 has no answer"):
        prepare(make_config(**shared, filter="correct"))


def test_a_weighting_by_verdicts_needs_an_answer_in_every_row_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"problem": "1+1", "answer": "2"}\n{"problem": "2+2"}\n')
    shared = {"task": "plain", "data": {"path": str(path)}, "evaluate": {"problems": 0}, "max_response_tokens": 16}
    paced = make_config(**shared, weighting={"type": "paced"}, samples_per_prompt=4)
    with pytest.raises(
        ConfigError, match=r"weighting: paced needs verdicts, and .*line 2 .* or choose another weighting\.type"
    ):
        prepare(paced)
    path.write_text('{"problem": "1+1", "answer": "2"}\n{"problem": "2+2", "answer": "4"}\n')
    prepare(paced)


def test_a_response_that_was_cut_is_unfinished_whatever_stands_last(prepared: Prepared) -> None:
    from renio_pipeline.tasks import make_task
    from renio_pipeline.types import Prompt, Row

    ids = prepared.tokenizer("7;#12")["input_ids"]
    for task in ("arithmetic", "plain"):
        row = Row(id="0", problem="5+7", answer="12" if task == "arithmetic" else "7;#12")
        prompt = Prompt(sample_id=0, row=row, student_ids=np.zeros(1, np.int32), teacher_ids=np.zeros(1, np.int32))
        for stop_reason, verdict in (("stop", "correct"), ("length", "unfinished")):
            rollout = Rollout(
                prompt=prompt,
                token_ids=np.array(ids, np.int32),
                logprobs=np.zeros(len(ids), np.float32),
                stop_reason=stop_reason,
                version=FIRST,
            )
            found = asyncio.run(Grader(make_task(task), prepared.tokenizer).judge(rollout))
            assert (found.verdict, found.answer is None) == (verdict, stop_reason == "length")


class Verdicts:
    """Judges that give their verdicts when the test says so."""

    def __init__(self, count: int) -> None:
        self.ready = [asyncio.Event() for _ in range(count)]

    async def judge(self, rollout: Rollout) -> Judged:
        await self.ready[rollout.sample_id].wait()
        return await judge(rollout)


def responses_of(prepared: Prepared, judge: Any, **changes: Any) -> tuple[Selection, Any]:
    config = config_of(**changes)
    stages, cursor = stages_of(prepared, config), Cursor(prepared.prompt_ids, prepared.rows, config)
    selection = Selection(config, cursor.take, judge)
    return selection, selection.responses(lambda prompts: stages.generators.generate(prompts, 1.0))


def test_without_a_filter_no_response_waits_for_its_verdict(prepared: Prepared) -> None:
    async def run() -> None:
        verdicts = Verdicts(BATCH)
        selection, responses = responses_of(prepared, verdicts.judge)
        came = [(await anext(responses)).sample_id for _ in range(BATCH)]
        assert came == list(reversed(range(BATCH)))
        assert selection.judged == {}
        end = asyncio.ensure_future(anext(responses, None))
        for event in verdicts.ready:
            assert not end.done(), "the step ends when the last verdict is there"
            event.set()
        assert await end is None
        assert list(selection.judged) == came

    asyncio.run(asyncio.wait_for(run(), 10))


def test_with_a_filter_a_verdict_that_takes_long_holds_up_no_other(prepared: Prepared) -> None:
    async def run() -> None:
        verdicts = Verdicts(BATCH)
        selection, responses = responses_of(prepared, verdicts.judge, filter="incorrect", filter_batch="shrink")
        for event in verdicts.ready[:3]:
            event.set()  # the responses that come last
        assert (await anext(responses)).sample_id == 0
        waiting = asyncio.ensure_future(anext(responses, None))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        for event in verdicts.ready:
            event.set()
        first = await waiting
        assert first is not None
        assert first.sample_id == 3
        assert await anext(responses, None) is None
        assert selection.kept == [0, 3]
        assert list(selection.judged) == list(reversed(range(BATCH))), (
            "in the order of the responses, whatever their verdicts took"
        )

    asyncio.run(asyncio.wait_for(run(), 10))


@pytest.mark.parametrize("filter_by", ["all", "incorrect"])
def test_a_step_that_is_called_off_calls_off_its_judges_and_its_writers(prepared: Prepared, filter_by: str) -> None:
    async def run() -> None:
        under_way = ended = closed = 0

        async def judge(rollout: Rollout) -> Judged:
            nonlocal under_way, ended
            under_way += 1
            try:
                await asyncio.sleep(60)
            finally:
                ended += 1
            raise AssertionError

        config = config_of(filter=filter_by)
        stages, cursor = stages_of(prepared, config), Cursor(prepared.prompt_ids, prepared.rows, config)

        async def write(prompts: Any) -> Any:
            nonlocal closed
            try:
                async for rollout in stages.generators.generate(prompts[1:], 1.0):
                    yield rollout
                await asyncio.sleep(60)
            finally:
                closed += 1

        async def consume() -> None:
            async for _ in Selection(config, cursor.take, judge).responses(write):
                pass

        task = asyncio.ensure_future(consume())
        while under_way < BATCH - 1:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)
        assert (under_way, ended, closed) == (BATCH - 1, BATCH - 1, 1)

    asyncio.run(asyncio.wait_for(run(), 300))


@pytest.mark.parametrize("filter_by", ["all", "incorrect"])
def test_a_judge_that_raises_ends_the_step(prepared: Prepared, filter_by: str) -> None:
    async def judge(rollout: Rollout) -> Judged:
        if rollout.sample_id == 2:
            raise RuntimeError("the task raised")
        return Judged(rollout=rollout, text="", verdict="incorrect")

    with pytest.raises(RuntimeError, match="the task raised"):
        step(prepared, judge, filter=filter_by)
