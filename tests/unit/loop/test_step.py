"""The step loop and the run around it, with stages that are fakes: in this process, without engines."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from renio_pipeline.config import load
from renio_pipeline.data.prompts import held_out_prompts
from renio_pipeline.grading.grader import Grader
from renio_pipeline.intervals import wilson
from renio_pipeline.loop.held_out import evaluate
from renio_pipeline.loop.timing import idle_shares, teachers_idle
from renio_pipeline.metrics.registry import METRICS
from renio_pipeline.metrics.sink import JsonlSink, read_jsonl
from renio_pipeline.metrics.step_metrics import accuracy, sample_records, step_metrics, verdict_metrics
from renio_pipeline.monitoring.console import LiveProgress, PlainProgress
from renio_pipeline.preflight import Prepared
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.stages.outcomes import StepResult
from renio_pipeline.tasks import make_task
from renio_pipeline.types import (
    Prompt,
    Publication,
    Rollout,
    Row,
    ScoredRollout,
    TeacherScores,
    TrainBatch,
    TrainReport,
    Version,
)
from tests.fakes.stages import (
    BATCH,
    KINDS,
    REPORT,
    FakeGenerators,
    FakeSink,
    FakeTeachers,
    config_of,
    kind,
    prepared,
    prompts_of,
    ratio,
    run_of,
    stages_of,
    step_of,
)

__all__ = ["prepared"]  # a fixture


def raw_weight(sample_id: int, more: float = 0.0) -> float:
    return math.exp(ratio(sample_id) + more) if kind(sample_id) != "correct" else 1.0


def normalised(raw: Sequence[float]) -> list[float]:
    return [value / (math.fsum(raw) / len(raw)) for value in raw]


def test_a_response_is_scored_before_the_last_one_is_written(prepared: Prepared) -> None:
    async def go() -> StepResult:
        stages = stages_of(prepared, config_of())
        stages.generators.before_last = stages.teachers.first_scored.wait  # else the last is never written
        return await step_of(prepared, config_of(), stages)

    assert len(asyncio.run(go()).scored) == BATCH


def test_samples_are_trained_on_in_the_order_of_their_ids_each_with_its_own_numbers(prepared: Prepared) -> None:
    stages = stages_of(prepared, config_of())
    result = asyncio.run(step_of(prepared, config_of(), stages))
    (batch,) = stages.trainers.batches
    assert [s.sample_id for s in batch.samples] == [s.rollout.sample_id for s in result.scored] == list(range(BATCH))
    for sample, prompt in zip(batch.samples, prompts_of(prepared, config_of()), strict=True):
        written = stages.generators.write(prompt)
        assert sample.prompt_ids.tolist() == prompt.student_ids.tolist()
        assert sample.response_ids.tolist() == written.token_ids.tolist()
        assert sample.student_logprobs[1] - sample.teacher_logprobs[1] == pytest.approx(ratio(sample.sample_id))
        assert sample.payload == "ref"


def test_weights_are_normalised_over_the_global_batch(prepared: Prepared) -> None:
    stages = stages_of(prepared, config_of())
    asyncio.run(step_of(prepared, config_of(), stages))
    weights = [s.weight for s in stages.trainers.batches[0].samples]
    assert weights == pytest.approx(normalised([raw_weight(i) for i in range(BATCH)]), rel=1e-5)
    assert np.mean(weights) == pytest.approx(1, rel=1e-5)


def test_uniform_weights_are_one_and_the_diagnostics_stay(prepared: Prepared) -> None:
    config = config_of(weighting={"type": "uniform"})
    stages = stages_of(prepared, config)
    result = asyncio.run(step_of(prepared, config, stages))
    assert [s.weight for s in stages.trainers.batches[0].samples] == [1.0] * BATCH
    assert result.weighed.raw.tolist() == pytest.approx([raw_weight(i) for i in range(BATCH)], rel=1e-5)


def test_token_factors_reach_the_trainer_the_records_and_the_metrics(prepared: Prepared) -> None:
    """The second token of a fake response is pivotal where its answer is not correct."""
    config = config_of(weighting={"type": "uniform", "after_pivotal": 0.25})
    stages = stages_of(prepared, config)
    result = asyncio.run(step_of(prepared, config, stages))
    records = sample_records(result)
    left = []
    for sample, record in zip(stages.trainers.batches[0].samples, records, strict=True):
        pivotal, tokens = kind(sample.sample_id) != "correct", len(sample.response_ids)
        expected = [1.0, 1.0] + [0.25 if pivotal else 1.0] * (tokens - 2)
        assert sample.token_factors is not None
        assert sample.token_factors.tolist() == record["token_factors"] == expected
        assert sample.until_pivotal == (2 if pivotal else None)
        left.append(sum(expected) / tokens)
    metrics = step_metrics(result, {}, {})
    assert metrics["weights/token_factor_mean"] == pytest.approx(np.mean(left), rel=1e-6)
    assert metrics["pivotal/loss_after"] == REPORT.loss_after_pivotal


def test_a_weighting_without_factors_sends_and_records_none(prepared: Prepared) -> None:
    stages = stages_of(prepared, config_of())
    result = asyncio.run(step_of(prepared, config_of(), stages))
    assert all(s.token_factors is None for s in stages.trainers.batches[0].samples)
    assert not any("token_factors" in record for record in sample_records(result))


@pytest.mark.parametrize(("whose", "more"), [("generator", 0.0), ("trainer", 0.25)])
def test_the_students_logprobs_are_whose_the_configuration_says(prepared: Prepared, whose: str, more: float) -> None:
    config = config_of(student_logprobs=whose)
    result = asyncio.run(step_of(prepared, config, stages_of(prepared, config)))
    assert result.weighed.raw.tolist() == pytest.approx([raw_weight(i, more) for i in range(BATCH)], rel=1e-5)


def test_a_step_samples_at_its_temperature_and_publishes_the_next_version(prepared: Prepared) -> None:
    stages = stages_of(prepared, config_of())
    stages.generators.version = Version(2, 7)
    result = asyncio.run(step_of(prepared, config_of(), stages, Version(2, 7)))
    assert stages.generators.calls == [(list(range(BATCH)), 0.9)]
    assert stages.trainers.versions == [result.publication.version] == [Version(2, 8)]


@pytest.mark.parametrize("version", [Version(0, 3), Version(0, 5), Version(1, 4)], ids=str)
def test_a_sample_of_another_version_stops_the_step_before_training(prepared: Prepared, version: Version) -> None:
    stages = stages_of(prepared, config_of())
    stages.generators.version = version
    with pytest.raises(AssertionError, match=r"samples \[0, 1, 2, 3, 4, 5\] were not written by version 0.4"):
        asyncio.run(step_of(prepared, config_of(), stages, Version(0, 4)))
    assert not stages.trainers.batches
    assert not stages.trainers.versions


@pytest.mark.parametrize("change", [lambda s: s[1:], lambda s: s + s[-1:], lambda s: s[::-1]], ids=["lost", "twice", "order"])
def test_a_sample_that_is_lost_or_doubled_stops_the_step_before_training(prepared: Prepared, change: Any) -> None:
    class CarelessFakeTeachers(FakeTeachers):
        async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
            return change(await super().score(rollouts, step))

    stages = stages_of(prepared, config_of())
    stages.teachers = CarelessFakeTeachers()
    with pytest.raises(AssertionError, match=r"samples (\[0, 1, 2, 3, 4, 5\] were sent out|came back as \[5, 4, 3, 2, 1, 0\])"):
        asyncio.run(step_of(prepared, config_of(), stages))
    assert not stages.trainers.batches


def metrics_of(prepared: Prepared) -> dict[str, float]:
    result = asyncio.run(step_of(prepared, config_of(), stages_of(prepared, config_of())))
    assert [result.judged[i].verdict for i in range(BATCH)] == [kind(i) for i in range(BATCH)]
    return step_metrics(result, {"generator": 1, "teacher": 2}, {})


def test_every_metric_of_a_step_is_registered_finite_and_plain_json(prepared: Prepared) -> None:
    metrics = metrics_of(prepared)
    assert metrics.keys() <= METRICS.keys()
    assert all(math.isfinite(value) for value in metrics.values())
    assert json.loads(json.dumps(metrics)) == metrics


def test_a_step_gives_every_registered_metric_but_those_of_what_it_has_not(prepared: Prepared) -> None:
    missing = METRICS.keys() - metrics_of(prepared).keys()
    others = {name for name in METRICS if name.startswith(("adaptive/", "off_policy/", "policy/"))}  # of other runs
    rewards = {"reward/mean", "reward/advantage_abs", "reward/silent", "reward/taught"}
    assert missing == {"eval/accuracy", "eval/response_tokens", *others, *rewards}


def test_the_metrics_of_a_step_are_what_its_samples_say(prepared: Prepared) -> None:
    metrics = metrics_of(prepared)
    prompts = prompts_of(prepared, config_of())
    lengths = [len(FakeGenerators(prepared.tokenizer).write(p).token_ids) for p in prompts]
    raw = [raw_weight(i) for i in range(BATCH)]
    weights = normalised(raw)
    wrong = np.array([kind(i) != "correct" for i in range(BATCH)])
    expected = {
        "loss": 0.25, "tokens/trained": 321, "grad_norm": 1.5, "payload/bytes": 600, "sync/version": 1,
        "tokens/generated": sum(lengths), "response/tokens": sum(lengths) / BATCH, "response/truncated": 1 / 3,
        "tokens/scored": sum(lengths) + sum(len(p.teacher_ids) for p in prompts), "reward/accuracy": 1 / 3,
        "pivotal/fraction": 4 / sum(lengths), "ratio/mean": sum(map(ratio, range(BATCH))) / sum(lengths),
        "weights/max": max(weights), "weights/min": min(weights), "weights/auroc": 1.0,
        "weights/effective_sample_size": BATCH**2 / sum(w * w for w in weights),
        "weights/wrong_over_right": np.array(weights)[wrong].mean() / np.array(weights)[~wrong].mean(),
        "pool/generator/size": 1, "pool/teacher/size": 2,
    }  # fmt: skip
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert metrics["time/step"] >= metrics["time/generate"] + metrics["time/weigh"] + metrics["time/train"]


def test_idle_is_the_share_of_the_step_without_work() -> None:
    before = {"generator": {"0": 1.0}, "teacher": {"0": 0.0, "1": 2.0, "gone": 1.0}}
    after = {"generator": {"0": 4.0}, "teacher": {"0": 1.0, "1": 2.0, "came": 7.0}}
    publication = Publication(version=Version(0, 1), bytes=0, publish_seconds=0, receive_seconds=0, seconds=1.0)
    shares = idle_shares(before, after, replace(REPORT, busy_seconds=[2.0, 4.0]), publication, 10.0)
    assert shares == pytest.approx({"idle/generator": 0.7, "idle/teacher": 0.95, "idle/trainer": 0.6})


def test_each_of_several_teachers_has_an_idle_share_of_its_own() -> None:
    before = {"maths/0/11": 1.0, "maths/1/12": 1.0, "math/0/13": 0.0}
    after = {"maths/0/11": 10.0, "maths/1/12": 8.0, "math/0/13": 1.0}
    assert teachers_idle(before, after, 10.0) == pytest.approx({"teacher.maths": 0.2, "teacher.math": 0.9})
    assert teachers_idle({"0/11": 1.0}, {"0/11": 2.0}, 10.0) == {}


def test_a_run_leaves_its_metrics_samples_checkpoints_and_result(tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path, prepared, steps=5, checkpoint={"every": 2}, evaluate={"problems": 5, "every": 3})
    outcome = asyncio.run(run.run())
    path = run.directory.path
    lines = read_jsonl(path / "metrics.jsonl")
    assert [line["step"] for line in lines] == run.progress.steps == [1, 2, 3, 4, 5]
    assert [line["sync/version"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["step"] for line in lines if "eval/accuracy" in line] == [3, 5]
    assert sorted(p.name for p in (path / "samples").iterdir()) == [f"step_00000{i}.jsonl" for i in range(1, 6)]
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == ["latest", "step_000002", "step_000004", "step_000005"]
    assert (path / "checkpoints/step_000004/weights").read_text() == "w"
    state = json.loads((path / "checkpoints/step_000004/run.json").read_text())
    assert state == {
        "step": 4,
        "samples_drawn": 4 * BATCH,
        "version": [0, 4],
        "weighting": None,
        "world_size": 1,
        "zero_stage": 2,
        "files": {"weights": 1},
    }
    assert json.loads((path / "result.json").read_text()) == json.loads(json.dumps(outcome))
    assert list(outcome["evaluations"]) == run.progress.evaluations == [0, 3, 5]
    assert outcome["auroc"] == 1.0
    assert outcome["first_step"].items() >= {k: v for k, v in lines[0].items() if k != "step"}.items()


def test_the_run_directorys_configuration_makes_the_same_run_again(tmp_path: Path) -> None:
    config = config_of(
        run_dir=str(tmp_path / "größe"),
        name="007",
        generator={"engine": {"a": None, "b": [1, "2"], "c": "on"}},
        pools={"generator": {"env": {"NCCL_DEBUG": "1", "X": "null"}}},
        objective={"type": "sampled"},
    )
    RunDirectory(config)
    assert load(config.directory / "config.yaml") == config


def test_every_sample_id_is_drawn_once_and_written_down_with_what_became_of_it(tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path, prepared)
    asyncio.run(run.run())
    files = sorted((run.directory.path / "samples").iterdir())
    records = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    assert [r["sample_id"] for r in records] == list(range(3 * BATCH))
    assert [r["verdict"] for r in records] == [kind(i) for i in range(3 * BATCH)]
    assert [r["version"] for r in records] == [f"0.{i // BATCH}" for i in range(3 * BATCH)]
    assert [r["pivotal"] for r in records] == [[] if kind(i) == "correct" else [1] for i in range(3 * BATCH)]
    assert [r["stop_reason"] for r in records[:3]] == ["stop", "stop", "length"]
    trained = [s.weight for batch in run.stages.trainers.batches for s in batch.samples]
    assert [r["weight"] for r in records] == trained
    assert records[1]["response"] == prepared.rows[[row.id for row in prepared.rows].index(records[1]["row"])].solution


def test_weights_go_out_before_the_first_sample_is_asked_for(tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path, prepared)
    publish = run.stages.trainers.publish
    calls_at_publish = []

    async def watched(version: Version) -> Publication:
        calls_at_publish.append((version, len(run.stages.generators.calls)))
        return await publish(version)

    run.stages.trainers.publish = watched
    asyncio.run(run.run())
    assert calls_at_publish[0] == (Version(0, 0), 0)
    assert [version.number for version, _ in calls_at_publish] == [0, 1, 2, 3]


def test_evaluation_has_its_own_temperature_and_never_a_training_sample(tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path, prepared, evaluate={"problems": 5, "temperature": 0.3})
    asyncio.run(run.run())
    evaluations = [ids for ids, temperature in run.stages.generators.calls if temperature == 0.3]
    assert evaluations == [[-1, -2, -3, -4, -5]] * 2
    assert all(min(ids) >= 0 for ids, temperature in run.stages.generators.calls if temperature == 0.9)


def test_without_evaluation_the_result_has_none(tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path, prepared, steps=1, evaluate={"problems": 0})
    outcome = asyncio.run(run.run())
    assert outcome["evaluations"] == {}
    assert len(run.stages.generators.calls) == 1


def test_the_ema_state_is_in_the_checkpoint(tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path, prepared, steps=1, weighting={"type": "renio", "normalization": "ema"})
    asyncio.run(run.run())
    state = json.loads((run.directory.path / "checkpoints/step_000001/run.json").read_text())
    assert state["weighting"]["running_mean"] == pytest.approx(np.mean([raw_weight(i) for i in range(BATCH)]), rel=1e-5)


@pytest.mark.parametrize(("mean", "warned"), [(0.41, True), (0.39, False)])
def test_a_mismatch_above_half_the_threshold_is_noted(tmp_path: Path, prepared: Prepared, mean: float, warned: bool) -> None:
    run = run_of(tmp_path, prepared, steps=1)  # threshold 0.8
    run.stages.trainers.report = replace(REPORT, mismatch_mean=mean)
    asyncio.run(run.run())
    assert any("set student_logprobs=trainer" in note for note in run.progress.notes) == warned


@pytest.mark.parametrize(
    ("stage", "verb"),
    [("generators", "generate"), ("teachers", "score"), ("weighting", "weigh"), ("trainers", "train"),
     ("trainers", "publish"), ("trainers", "save"), ("weighting", "state")],
)  # fmt: skip
def test_an_exception_in_a_stage_surfaces_and_commits_no_checkpoint(
    tmp_path: Path, prepared: Prepared, stage: str, verb: str
) -> None:
    run = run_of(tmp_path, prepared, checkpoint={"every": 1})
    error = RuntimeError("a worker died")

    async def fail(*arguments: Any) -> Any:
        raise error

    async def fail_to_stream(*arguments: Any) -> AsyncIterator[Rollout]:
        raise error
        yield

    setattr(getattr(run.stages, stage), verb, fail_to_stream if verb == "generate" else fail)
    with pytest.raises(RuntimeError) as caught:
        asyncio.run(run.run())
    assert caught.value is error
    committed = [p.name for p in (run.directory.path / "checkpoints").iterdir() if not p.name.startswith(".")]
    assert committed == []
    assert not (run.directory.path / "result.json").exists()


def test_a_failure_in_the_second_step_keeps_what_the_first_one_wrote(tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path, prepared, checkpoint={"every": 1})
    train = run.stages.trainers.train

    async def fail_second(batch: TrainBatch) -> TrainReport:
        if batch.step == 2:
            raise RuntimeError("out of memory")
        return await train(batch)

    run.stages.trainers.train = fail_second
    with pytest.raises(RuntimeError, match="out of memory"):
        asyncio.run(run.run())
    assert [line["step"] for line in read_jsonl(run.directory.metrics)] == [1]
    assert sorted(p.name for p in (run.directory.path / "checkpoints").iterdir()) == ["latest", "step_000001"]


def test_a_metric_that_is_not_finite_stops_the_run_before_its_checkpoint(tmp_path: Path, prepared: Prepared) -> None:
    run = run_of(tmp_path, prepared, checkpoint={"every": 1})
    run.stages.trainers.report = replace(REPORT, grad_norm=math.nan)
    with pytest.raises(ValueError, match=r"step 1: metrics that are not finite: \{'grad_norm': nan\}"):
        asyncio.run(run.run())
    assert read_jsonl(run.directory.metrics) == []
    assert list((run.directory.path / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("fails_at", [2, 9], ids=["fails", "ends"])
def test_every_sink_gets_every_step_and_is_closed_whatever_happens(tmp_path: Path, prepared: Prepared, fails_at: int) -> None:
    run = run_of(tmp_path, prepared)
    run.sinks = sinks = [FakeSink(), FakeSink()]
    train = run.stages.trainers.train

    async def fail_at(batch: TrainBatch) -> TrainReport:
        if batch.step == fails_at:
            raise RuntimeError("out of memory")
        return await train(batch)

    run.stages.trainers.train = fail_at
    with pytest.raises(RuntimeError) if fails_at <= 3 else nullcontext():
        asyncio.run(run.run())
    assert [sink.steps for sink in sinks] == [list(range(1, min(fails_at, 4)))] * 2
    assert [sink.closed for sink in sinks] == [1, 1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_sink_refuses_what_is_not_finite_and_writes_none_of_it(tmp_path: Path, value: float) -> None:
    sink = JsonlSink(tmp_path / "m")
    sink.write(1, {"loss": 1.0})
    with pytest.raises(ValueError, match=r"step 2: metrics that are not finite: \{'lr'"):
        sink.write(2, {"loss": 1.0, "lr": value})
    assert read_jsonl(tmp_path / "m") == [{"step": 1, "loss": 1.0}]  # flushed before it is closed
    sink.close()


def test_the_sink_refuses_a_name_that_is_not_registered(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "m")
    with pytest.raises(ValueError, match=r"without an entry in the registry: \['loss/total', 'losss'\]"):
        sink.write(1, {"loss": 1.0, "losss": 1.0, "loss/total": 1.0})
    sink.close()
    assert (tmp_path / "m").read_text() == ""


def test_evaluation_counts_unfinished_as_wrong(prepared: Prepared) -> None:
    prompts = held_out_prompts(prepared.held_out_ids, prepared.held_out)
    generators = FakeGenerators(prepared.tokenizer)
    found = asyncio.run(evaluate(generators, prompts, Grader(prepared.task, prepared.tokenizer).judge, 1.0))
    right = sum(kind(p.sample_id) == "correct" for p in prompts)
    assert {kind(p.sample_id) for p in prompts} == set(KINDS)
    assert (found.problems, found.accuracy) == (5, right / 5)
    assert (found.low, found.high) == wilson(right, 5)
    lengths = [len(generators.write(p).token_ids) for p in prompts]
    assert found.response_tokens == pytest.approx(np.mean(lengths))


def test_evaluation_leaves_out_rows_without_an_answer(prepared: Prepared) -> None:
    rows = [Row(id="a", problem="1+1", answer="3+4", solution="3+4"), Row(id="b", problem="1+1", solution="2")]
    generators, judge = FakeGenerators(prepared.tokenizer), Grader(make_task("plain"), prepared.tokenizer).judge
    prompts = held_out_prompts([np.zeros(1, np.int32)] * 2, rows)  # ids -1 (unfinished: 3+4) and -2 (its solution)
    assert asyncio.run(evaluate(generators, prompts, judge, 1.0)).problems == 1
    with pytest.raises(ValueError, match="no held-out row has an answer"):
        asyncio.run(evaluate(generators, prompts[1:], judge, 1.0))


def test_weights_are_judged_by_the_verdicts_that_there_are() -> None:
    raw = np.array([3.0, 1.0, 2.0, 1.0, 9.0], np.float32)
    metrics = verdict_metrics(raw, raw * 2, ["incorrect", "correct", "correct", "unfinished", None])
    assert metrics == pytest.approx({"weights/auroc": (1 + 1 + 0.5 + 0) / 4, "weights/wrong_over_right": 4.0 / 3.0})
    assert accuracy(["incorrect", "correct", "correct", "unfinished", None]) == {"reward/accuracy": 0.5}


@pytest.mark.parametrize(("verdicts", "share"), [(["correct"] * 2, 1.0), (["incorrect", "unfinished"], 0.0)])
def test_verdicts_of_one_kind_leave_nothing_to_tell_apart(verdicts: Any, share: float) -> None:
    assert verdict_metrics(np.ones(2), np.ones(2), verdicts) == {}
    assert accuracy(verdicts) == {"reward/accuracy": share}


def test_no_verdict_at_all_gives_no_metric() -> None:
    assert verdict_metrics(np.ones(2), np.ones(2), [None, None]) == accuracy([None, None]) == {}


@pytest.mark.parametrize("live", [False, True], ids=["plain", "live"])
def test_progress_shows_a_step_with_and_without_verdicts(prepared: Prepared, live: bool) -> None:
    screen = StringIO()
    console = Console(file=screen, force_terminal=live, width=120, highlight=False)
    metrics = metrics_of(prepared)
    with (LiveProgress if live else PlainProgress)(2, console) as progress:
        progress.step(1, metrics)
        progress.step(2, {k: v for k, v in metrics.items() if k != "reward/accuracy" and not k.startswith("weights/")})
    assert ("generate" if live else "step 1/2  loss 0.2500  accuracy 0.33") in screen.getvalue()


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_log_probability_that_is_no_number_names_the_step_and_the_sample(side: str) -> None:
    from renio_pipeline.loop.invariants import numbers
    from renio_pipeline.types import NonFiniteError, Rollout, Row, ScoredRollout

    ids, fine, bad = np.zeros(2, np.int32), np.zeros(2, np.float32), np.array([0, np.nan], np.float32)
    scored = []
    for i in range(4):
        student, teacher = (bad if i == 2 and side == "student" else fine), (bad if i == 2 and side == "teacher" else fine)
        prompt = Prompt(sample_id=i, row=Row(id=str(i), problem=""), student_ids=ids, teacher_ids=ids)
        rollout = Rollout(prompt=prompt, token_ids=ids, logprobs=student, stop_reason="stop", version=Version(0, 0))
        scored.append(ScoredRollout(rollout=rollout, scores=TeacherScores(sample_id=i, logprobs=teacher)))
    with pytest.raises(NonFiniteError, match=r"step 7: .* samples \[2\]"):
        numbers(7, scored, [s.rollout.logprobs for s in scored])
    numbers(7, scored[:2], [s.rollout.logprobs for s in scored[:2]])
