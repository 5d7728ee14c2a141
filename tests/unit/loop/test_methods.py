"""What holds of every method: `check`, `plan`, `probe`, `report`, a resumed run, and that each sample is trained on once.

The run is the real one, over stages that are fakes. Its trainers report a loss that depends on what they were given, and keep a
ledger as ranks do.
"""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renio_pipeline.config import ConfigError, RunConfig, parse
from renio_pipeline.data.solutions import Solutions
from renio_pipeline.ledger import history, prove_exactly_once
from renio_pipeline.loop.run import Run
from renio_pipeline.metrics.sink import read_jsonl
from renio_pipeline.planning.known import Sources, gather
from renio_pipeline.planning.measured import measured
from renio_pipeline.planning.plan import Planner, check
from renio_pipeline.planning.view import overrides, plan_json
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.probe.setting import probing
from renio_pipeline.report.facts import facts
from renio_pipeline.report.recorded import read_runs
from renio_pipeline.report.samples import read_samples
from renio_pipeline.run_dir.checkpoint_files import THE_START, RunState
from renio_pipeline.run_dir.ledger_files import record_trained
from renio_pipeline.run_dir.resume import resume_point
from renio_pipeline.stages.off_policy import with_off_policy
from renio_pipeline.types import TrainBatch, TrainReport
from tests.fakes.stages import BATCH, REPORT, FakeTrainers, config_of, run_with, stages_of

ALONE: dict[str, Any] = {"teacher": {}, "objective": {}, "sampling": {"temperature": 1.0}}
METHODS: dict[str, dict[str, Any]] = {
    "opd": {"weighting": {"type": "uniform"}},
    "renio": {"weighting": {"type": "renio"}},
    "opsd": {"method": {"type": "opsd"}, "teacher": {}},
    "grpo": {"method": {"type": "grpo", "passes": 2}, "samples_per_prompt": 3, **ALONE},
    "sft": {"method": {"type": "sft"}, **ALONE, "evaluate": {}},
    "sft, evaluated": {"method": {"type": "sft"}, **ALONE},
    "opd and reward": {"reward": {"coefficient": 0.5}, "samples_per_prompt": 3, "sampling": {"temperature": 1.0}},
    "a third solutions": {"data": {"problems": 8, "off_policy": {"share": 1 / 3}}},
    "served": {"teacher": {"model": "embedded:teacher", "type": "http", "urls": ["http://teacher:8000"]}},
}
STEPS, BROKEN, KEPT = 4, 3, 2  # of a run; the step in which the broken one fails, and the one that it resumes after
TIMES = ("time/", "idle/", "memory/")


@dataclass
class RecordingTrainers(FakeTrainers):
    """A loss of everything that a step's samples are, and a line in the ledger."""

    ledger: Path = Path()
    fails_in: int = 0

    async def train(self, batch: TrainBatch) -> TrainReport:
        if batch.step == self.fails_in:
            raise RuntimeError("out of memory")
        seen = 0
        for s in batch.samples:
            numbers = np.array([s.sample_id, s.weight, s.advantage, s.taught, *s.prompt_ids, *s.response_ids], np.float64)
            seen = zlib.crc32(numbers.tobytes(), seen)
        ids = [s.sample_id for s in batch.samples]
        foreign = [s.sample_id for s in batch.samples if s.off_policy]
        incarnation = self.versions[-1].incarnation
        record_trained(self.ledger, 0, step=batch.step, incarnation=incarnation, sample_ids=ids, off_policy=foreign)
        return replace(REPORT, loss=seen / 2**32, shares=[ids])


@dataclass(frozen=True)
class Case:
    config: RunConfig
    prepared: Prepared
    whole: Path
    resumed: Path


def changes_of(name: str) -> dict[str, Any]:
    return {"steps": STEPS, "checkpoint": {"every": 2}} | METHODS[name]


def run_of(folder: Path, prepared: Prepared, name: str, state: RunState = THE_START, fails_in: int = 0) -> Run:
    config = config_of(run_dir=str(folder), **changes_of(name))
    stages = stages_of(prepared, config)
    generators = getattr(stages.generators, "student", stages.generators)
    (folder / "ledger").mkdir(parents=True, exist_ok=True)
    stages.trainers = RecordingTrainers(generators, ledger=folder / "ledger", fails_in=fails_in)
    if config.data.off_policy.share:
        stages = with_off_policy(stages, config, solutions=prepared.solutions, end_tokens={})
    return run_with(prepared, config, stages, state)


@pytest.fixture(scope="module", params=METHODS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A method's run that went through, and one that failed and was resumed."""
    folder, name = tmp_path_factory.mktemp("run"), request.param
    config = config_of(**changes_of(name))
    prepared = prepare(config)
    asyncio.run(run_of(folder / "whole", prepared, name).run())
    broken = run_of(folder / "resumed", prepared, name, fails_in=BROKEN)
    with pytest.raises(RuntimeError, match="out of memory"):
        asyncio.run(broken.run())
    state = resume_point(broken.config).state
    assert state.step == KEPT
    asyncio.run(run_of(folder / "resumed", prepared, name, state).run())
    return Case(config, prepared, folder / "whole", folder / "resumed")


def without_times(run: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if not k.startswith(TIMES)} for line in read_jsonl(run / "metrics.jsonl")]


def test_a_resumed_run_is_the_run_that_went_through(case: Case) -> None:
    found, expected = without_times(case.resumed), without_times(case.whole)
    assert len(expected) == STEPS
    assert len({line["loss"] for line in expected}) == STEPS, "steps have the same samples"
    assert found == expected
    for step in range(1, STEPS + 1):
        name = f"samples/step_{step:06d}.jsonl"
        own, other = (
            [{k: v for k, v in r.items() if k not in ("version", "last_version")} for r in read_jsonl(run / name)]
            for run in (case.resumed, case.whole)
        )
        assert own == other


def test_every_sample_is_trained_on_exactly_once(case: Case) -> None:
    for run in (case.whole, case.resumed):
        prove_exactly_once(run)
        trained = [i for ranks in history(run).values() for ids in ranks.values() for i in ids]
        assert trained == list(range(STEPS * BATCH))


def test_its_pools_are_those_that_it_needs_and_its_record_says_so_again(case: Case) -> None:
    config = case.config
    assert ("generator" in config.pool_names) == config.generates
    assert ("weighting" in config.pool_names) == config.distils
    assert bool(config.teacher_pools) == config.distils
    assert parse(config.model_dump(mode="json")) == config
    lines = read_jsonl(case.whole / "metrics.jsonl")
    for pool in ("generator", "teacher"):
        assert (f"pool/{pool}/size" in lines[0]) == (pool in config.pool_names)
    assert ("divergence" in lines[0]) == config.distils
    assert ("reward/mean" in lines[0]) == config.rewarded


def test_a_plan_shares_the_gpus_out_to_the_pools_that_it_has(case: Case) -> None:
    config = case.config
    served = any(teacher.type == "http" for teacher in config.all_teachers.values())
    if served:
        with pytest.raises(ConfigError, match=r"the speed of a teacher that is served elsewhere is not known here"):
            gather(config, Sources(device="h100"))
    planner = Planner(config, gather(config, Sources(device="h100", run=case.whole if served else None)), gpus=4)
    check(planner)
    best = planner.best[0].split
    assert bool(best.generators) == config.generates
    assert bool(best.teachers) == config.distils
    assert planner.best[0].gpus <= 4
    assert ("generator" in plan_json(planner)["memory"]) == config.generates
    assert any(line.startswith("pools.generator.") for line in overrides(planner, planner.best[0])) == config.generates
    generated = planner.work.written(1)
    assert len(generated) == round(BATCH * (1 - config.off_policy_share))


def test_a_plan_measures_a_run(case: Case) -> None:
    found = measured(case.whole)
    assert (found.generator is None) == case.config.on_solutions
    assert (found.teacher is None) == (not case.config.distils)
    tokens = [r["token_ids"] for step in range(1, STEPS + 1) for r in read_jsonl(case.whole / f"samples/step_{step:06d}.jsonl")]
    assert found.lengths.mean == pytest.approx(np.mean([len(ids) for ids in tokens]), rel=0.05)


def test_a_probe_is_made_of_what_has_a_teacher_and_refused_otherwise(case: Case) -> None:
    if not case.config.distils:
        with pytest.raises(ConfigError, match=rf"^method\.type: {case.config.method.type} learns from no teacher, so there is"):
            probing(case.config)
        return
    found, _ = probing(case.config)
    assert found.all_teachers == case.config.all_teachers
    assert not found.rewarded


def test_a_report_says_what_was_learnt_from(case: Case) -> None:
    (run,) = read_runs([case.whole])
    samples = read_samples(run, (), 10_000)
    shown = dict(facts(run, samples))
    config = case.config
    assert shown["Method"] == config.method.type
    assert ("Teacher" in shown, "Weighting" in shown) == (config.distils, config.distils)
    assert ("Off-policy" in shown) == bool(config.off_policy_share)
    assert ("Held-out accuracy" in shown) == bool(config.evaluate.problems)
    (entry, *_) = samples.reader["steps"]
    assert len(entry["sample"]) == BATCH
    assert (entry["student"] is None) == config.on_solutions
    assert (entry["teacher_logprob"] is None) == (not config.distils)
    assert (entry["reward"] is None) == (not config.rewarded)


def test_solutions_are_what_the_share_says(case: Case) -> None:
    count = 0
    for step in range(1, STEPS + 1):
        for record in read_jsonl(case.whole / f"samples/step_{step:06d}.jsonl"):
            count += record.get("off_policy") == "solution"
    assert count == round(STEPS * BATCH * case.config.off_policy_share)
    assert (case.prepared.solutions is None) == (not case.config.off_policy_share)
    assert case.prepared.solutions is None or isinstance(case.prepared.solutions, Solutions)
