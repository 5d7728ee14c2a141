"""A step and a run that learn from solutions, over stages that are fakes: nobody writes, scores or weighs."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

from renio_pipeline.metrics.registry import METRICS
from renio_pipeline.metrics.sink import read_jsonl
from renio_pipeline.metrics.step_metrics import sample_records, step_metrics
from renio_pipeline.monitoring.distributions import Distributions
from renio_pipeline.monitoring.replicas import Replicas
from renio_pipeline.monitoring.spans import Rows, ways
from renio_pipeline.preflight import Prepared
from renio_pipeline.report import write_report
from renio_pipeline.types import Version
from tests.fakes.stages import BATCH, config_of, prepared, run_of, stages_of, step_of

__all__ = ["prepared"]  # a fixture
SFT: dict[str, Any] = {"method": {"type": "sft"}, "teacher": {}, "objective": {}, "evaluate": {}}


def test_a_step_trains_on_the_rows_solutions_and_asks_nobody(prepared: Prepared) -> None:
    config = config_of(**SFT)
    stages = stages_of(prepared, config)
    result = asyncio.run(step_of(prepared, config, stages))
    trainers: Any = stages.trainers
    (batch,) = trainers.batches
    assert [s.sample_id for s in batch.samples] == list(range(BATCH))
    for sample, scored in zip(batch.samples, result.scored, strict=True):
        text = prepared.tokenizer.decode(sample.response_ids, skip_special_tokens=True)
        assert text == scored.rollout.prompt.row.solution
        assert sample.response_ids[-1] == prepared.tokenizer.eos_token_id
        assert sample.teacher_logprobs is sample.payload is None
        assert sample.off_policy
        assert sample.weight == 1
    assert trainers.versions == [], "weights were sent to nobody"
    assert result.publication.version == Version(0, 1)
    assert result.weighed is result.rewarded is None


def test_its_metrics_records_and_traces_have_nothing_of_what_is_not_there(prepared: Prepared) -> None:
    config = config_of(**SFT)
    result = asyncio.run(step_of(prepared, config, stages_of(prepared, config)))
    metrics = step_metrics(result, {}, {})
    assert metrics.keys() <= METRICS.keys()
    absent = ("weights/", "pivotal/", "pool/", "idle/generator", "idle/teacher", "mismatch/", "reward/", "response/")
    assert not [name for name in metrics if name.startswith(absent)]
    assert (metrics["off_policy/fraction"], metrics["tokens/generated"], metrics["sync/bytes"]) == (1.0, 0, 0)
    assert all(math.isfinite(value) for value in metrics.values())
    records = json.loads(json.dumps(sample_records(result), allow_nan=False))
    assert not {"student_logprobs", "teacher_logprobs", "weight", "reward"} & records[0].keys()
    assert {r["off_policy"] for r in records} == {"solution"}
    Distributions(config).observe(result)
    Replicas().observe(result)
    assert {span.place[0] for span in Rows().spans(result)} <= {"trainer"}
    assert all(len(way.stops) == 1 for way in ways(result))


def test_an_evaluation_has_the_weights_of_its_step_and_steps_send_none(prepared: Prepared, tmp_path: Path) -> None:
    run = run_of(tmp_path, prepared, **SFT | {"evaluate": {"problems": 5, "every": 2}}, checkpoint={"every": 1})
    outcome = asyncio.run(run.run())
    assert outcome["evaluations"].keys() == {0, 2, 3}
    student: Any = run.stages.generators.student  # type: ignore[attr-defined]
    assert [len(ids) for ids, _ in student.calls] == [5, 5, 5]
    assert all(min(ids) < 0 for ids, _ in student.calls), "a training problem was the student's to answer"
    # At the start, and before each of the evaluations.
    assert run.stages.trainers.versions == [Version(0, n) for n in (0, 0, 2, 3)]  # type: ignore[attr-defined]
    assert [line["sync/version"] for line in read_jsonl(run.directory.metrics)] == [1, 2, 3]


def test_a_whole_run_without_generators_is_recorded_and_shown(prepared: Prepared, tmp_path: Path) -> None:
    run = run_of(tmp_path, prepared, **SFT, checkpoint={"every": 1})
    outcome = asyncio.run(run.run())
    assert (outcome["evaluations"], outcome["auroc"]) == ({}, None)
    assert run.fixed_pools().keys() == {"trainer"}
    assert "pool/generator/size" not in run.metrics
    (page,) = write_report([run.directory.path])
    text = page.read_text(encoding="utf-8")
    assert "every response is its row&#x27;s solution" in text or "every response is its row's solution" in text
