"""Metrics of each source of a mixture, from a step's result to ``metrics.jsonl``, Prometheus and the samples."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from renio_pipeline.metrics.registry import METRICS, source_quantity
from renio_pipeline.metrics.step_metrics import sample_records, step_metrics
from renio_pipeline.monitoring.distributions import Distributions
from renio_pipeline.monitoring.figures import Figures
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.stages.outcomes import StepResult
from renio_pipeline.types import OffPolicySource
from tests.fakes.stages import BATCH, config_of, prepared, run_of, stages_of, step_of
from tests.unit.data.test_mixture import mixed

__all__ = ["prepared"]  # a fixture


def result_of(prepared: Prepared) -> StepResult:
    """A step whose even samples are of source a, and whose odd ones are of source b."""
    found = asyncio.run(step_of(prepared, config_of(), stages_of(prepared, config_of())))

    def named(rollout):  # type: ignore[no-untyped-def]
        row = replace(rollout.prompt.row, source="ab"[rollout.sample_id % 2])
        return replace(rollout, prompt=replace(rollout.prompt, row=row))

    judged = {i: replace(j, rollout=named(j.rollout)) for i, j in found.judged.items()}
    return replace(found, judged=judged, scored=[replace(s, rollout=named(s.rollout)) for s in found.scored])


def test_the_metrics_of_a_source_are_those_of_its_samples(prepared: Prepared) -> None:
    result = result_of(prepared)
    metrics = step_metrics(result, {"generator": 1, "teacher": 1}, {})
    for offset, source in enumerate("ab"):
        own = range(offset, BATCH, 2)
        verdicts = [result.judged[i].verdict == "correct" for i in own]
        assert metrics[f"source/{source}/samples"] == len(own)
        assert metrics[f"source/{source}/accuracy"] == pytest.approx(sum(verdicts) / len(own))
        assert metrics[f"source/{source}/weight"] == pytest.approx(sum(result.weighed.weights[i] for i in own) / len(own))
        tokens = sum(len(result.scored[i].rollout.token_ids) for i in own)
        assert metrics[f"source/{source}/response_tokens"] == pytest.approx(tokens / len(own))
        assert metrics[f"source/{source}/pivotal"] == pytest.approx(sum(len(result.weighed.pivotal[i]) for i in own) / tokens)
    both = [metrics[f"source/{source}/weight"] for source in "ab"]
    assert sum(both) / 2 == pytest.approx(1, rel=1e-5), "the mean weight of a batch is one"
    assert {r["source"] for r in sample_records(result)} == {"a", "b"}


@pytest.mark.parametrize(("writer", "weighed"), [("recorded", True), ("solution", False)])
def test_recorded_responses_count_as_weighed_and_as_read_by_nobody(
    prepared: Prepared, writer: OffPolicySource, weighed: bool
) -> None:
    own = result_of(prepared)
    result = replace(own, scored=[replace(s, rollout=replace(s.rollout, off_policy=writer)) for s in own.scored])
    found, expected = step_metrics(result, {}, {}), step_metrics(own, {}, {})
    for source in "ab":
        assert found[f"source/{source}/pivotal"] == (expected[f"source/{source}/pivotal"] if weighed else 0)
    assert found["tokens/scored"] == (0 if writer == "recorded" else expected["tokens/scored"])
    tokens = sum(len(s.rollout.token_ids) for s in own.scored)
    assert ratios_of(result) == (tokens if weighed else 0)


def ratios_of(result: StepResult) -> float:
    """How many log-ratios a step adds to the run's histogram."""
    found = Distributions(config_of())
    found.observe(result)
    (family,) = [each for each in found.collect("r") if each.name == "renio_log_ratio_nats"]
    return max(sample.value for sample in family.samples if sample.name.endswith("_bucket"))


def test_a_run_with_one_source_has_none_of_them(prepared: Prepared) -> None:
    result = asyncio.run(step_of(prepared, config_of(), stages_of(prepared, config_of())))
    assert step_metrics(result, {}, {}).keys() <= METRICS.keys()
    assert all("source" not in record for record in sample_records(result))


def test_prometheus_has_the_source_as_a_label(prepared: Prepared) -> None:
    config, registry = config_of(metrics_port=0), CollectorRegistry()
    figures = Figures(config)
    figures.write(1, step_metrics(result_of(prepared), {}, {}) | {"source/a/eval_accuracy": 0.25})
    registry.register(figures)  # type: ignore[arg-type]
    text = generate_latest(registry).decode()
    assert f'renio_source_samples{{run="{config.name}",source="a"}} ' in text
    assert f'renio_source_accuracy_ratio{{run="{config.name}",source="b"}} ' in text
    assert f'renio_source_eval_accuracy_ratio{{run="{config.name}",source="a"}} 0.25' in text


@pytest.mark.parametrize("name", ["source/a/nothing", "source//accuracy", "loss", "source/a"])
def test_other_names_are_no_sources_metrics(name: str) -> None:
    assert source_quantity(name) is None


def test_a_whole_run_of_two_sources_records_them(tmp_path: Path) -> None:
    made = {"path": None, "task": "arithmetic", "problems": 20}
    changes = {"sums": made, "words": made | {"task_options": {"terms": 2}, "name": "words"}}
    config = mixed(tmp_path, **changes | {"sums": made | {"name": "sums"}}, evaluate={"problems": 3})
    data = config.data.model_dump()
    run = run_of(tmp_path / "it", prepare(config), steps=2, data=data, evaluate={"problems": 3})
    outcome = asyncio.run(run.run())
    lines = [json.loads(line) for line in (run.directory.path / "metrics.jsonl").read_text().splitlines()]
    assert [{name.split("/")[1] for name in line if name.startswith("source/")} for line in lines] == [{"sums", "words"}] * 2
    assert sum(line[f"source/{name}/samples"] for line in lines for name in ("sums", "words")) == 2 * BATCH
    found = outcome["evaluations"][2]
    assert found["problems"] == 6
    assert sum(found["sources"].values()) / 2 == pytest.approx(found["accuracy"])
    assert {name: lines[-1][f"source/{name}/eval_accuracy"] for name in ("sums", "words")} == found["sources"]
    assert run.directory.past().evaluations[2].sources == found["sources"]
