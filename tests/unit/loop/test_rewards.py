"""A step and a run that learn from rewards, over stages that are fakes: without a teacher, and beside one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renio_pipeline.metrics.registry import METRICS
from renio_pipeline.metrics.sink import read_jsonl
from renio_pipeline.metrics.step_metrics import sample_records, step_metrics
from renio_pipeline.monitoring.distributions import Distributions
from renio_pipeline.monitoring.replicas import Replicas
from renio_pipeline.monitoring.spans import Rows, ways
from renio_pipeline.preflight import Prepared
from renio_pipeline.run_dir.batches import read_batches
from renio_pipeline.stages.outcomes import StepResult, over_passes
from renio_pipeline.types import TrainReport
from tests.fakes.stages import BATCH, REPORT, config_of, kind, prepared, run_of, stages_of, step_of

__all__ = ["prepared"]  # a fixture
GRPO: dict[str, Any] = {
    "method": {"type": "grpo"}, "teacher": {}, "samples_per_prompt": 3, "sampling": {"temperature": 1.0},
    "objective": {"type": "clipped"},
}  # fmt: skip


def stepped(prepared: Prepared, **changes: Any) -> tuple[StepResult, Any]:
    config = config_of(**changes)
    stages = stages_of(prepared, config)
    return asyncio.run(step_of(prepared, config, stages)), stages


def test_a_step_without_a_teacher_trains_on_advantages(prepared: Prepared) -> None:
    result, stages = stepped(prepared, **GRPO)
    assert stages.teachers is stages.weighting is result.weighed is None
    (batch,) = stages.trainers.batches
    assert [s.sample_id for s in batch.samples] == list(range(BATCH))
    assert all(s.teacher_logprobs is s.payload is None and s.weight == 1 for s in batch.samples)
    right = [kind(i) == "correct" for i in range(BATCH)]  # one of each group of three
    expected = [(2 / 3 if yes else -1 / 3) / ((1 / 3) ** 0.5 + 1e-4) for yes in right]
    assert [s.advantage for s in batch.samples] == pytest.approx(expected)


def test_its_metrics_records_and_traces_have_nothing_of_a_teacher(prepared: Prepared) -> None:
    result, _ = stepped(prepared, **GRPO)
    metrics = step_metrics(result, {"generator": 1}, {})
    assert metrics.keys() <= METRICS.keys()
    assert not [name for name in metrics if name.startswith(("weights/", "pivotal/", "ratio/", "pool/teacher", "idle/teacher"))]
    assert (metrics["reward/mean"], metrics["reward/silent"]) == (pytest.approx(1 / 3), 0.0)
    assert (metrics["tokens/scored"], metrics["payload/bytes"]) == (0, 0)
    assert "time/score" not in metrics
    records = json.loads(json.dumps(sample_records(result)))
    assert not {"teacher", "teacher_logprobs", "weight", "raw_weight", "pivotal"} & records[0].keys()
    assert [r["reward"] for r in records] == [float(kind(i) == "correct") for i in range(BATCH)]
    Distributions(config_of(**GRPO)).observe(result)
    Replicas().observe(result)
    assert {span.place[0] for span in Rows().spans(result)} <= {"generator", "trainer"}
    assert all(len(way.stops) == 2 for way in ways(result))


def test_a_whole_run_without_a_teacher_records_checkpoints_and_resumes(prepared: Prepared, tmp_path: Path) -> None:
    run = run_of(tmp_path, prepared, **GRPO, checkpoint={"every": 1}, evaluate={"problems": 5, "every": 2})
    outcome = asyncio.run(run.run())
    assert outcome["auroc"] is None
    assert len(outcome["evaluations"]) == 3
    assert [line["step"] for line in read_jsonl(run.directory.metrics)] == [1, 2, 3]
    assert run.fixed_pools().keys() == {"trainer"}
    batches = read_batches(run.directory.path)
    assert [(len(batch.sample_ids), batch.weighed, set(batch.weight)) for batch in batches.values()] == [
        (BATCH, False, {1.0})
    ] * 3
    assert not [note for note in run.progress.notes if "kept nothing" in note]  # type: ignore[attr-defined]


def test_beside_a_teacher_rewards_change_no_weight(prepared: Prepared) -> None:
    plain, _ = stepped(prepared, samples_per_prompt=3)
    reward = {"coefficient": 0.5, "teacher_when": "incorrect"}
    result, stages = stepped(prepared, samples_per_prompt=3, reward=reward, sampling={"temperature": 1.0})
    assert plain.weighed is not None
    assert result.weighed is not None
    np.testing.assert_array_equal(result.weighed.weights, plain.weighed.weights)
    samples = stages.trainers.batches[0].samples
    assert [s.taught for s in samples] == [kind(i) != "correct" for i in range(BATCH)]
    assert [s.advantage for s in samples] == pytest.approx([2 / 3 if kind(i) == "correct" else -1 / 3 for i in range(BATCH)])
    metrics = step_metrics(result, {"generator": 1, "teacher": 2}, {})
    assert metrics["reward/taught"] == pytest.approx(2 / 3)
    assert metrics["weights/max"] > 1
    record = sample_records(result)[0]
    assert (record["reward"], record["taught"], record["weight"]) == (0.0, True, pytest.approx(samples[0].weight))


def test_several_passes_are_reported_as_their_means_but_for_what_the_first_one_alone_knows() -> None:
    def report(loss: float, mismatch: float, clipped: float) -> TrainReport:
        values = {name: getattr(REPORT, name) for name in TrainReport.__slots__}
        own = {"loss": loss, "mismatch_mean": mismatch, "measured": {"policy/clipped": clipped}, "busy_seconds": [1.0, 2.0]}
        return TrainReport(**values | own)

    found = over_passes([report(1.0, 0.01, 0.0), report(3.0, 0.5, 0.2)])
    assert (found.loss, found.mismatch_mean, found.tokens, found.lr) == (2.0, 0.01, REPORT.tokens, REPORT.lr)
    assert (found.measured, found.busy_seconds) == ({"policy/clipped": 0.1}, [2.0, 4.0])
    assert over_passes([REPORT]) is REPORT
