"""``data.off_policy``: which samples it takes, what their responses are, and that nothing mistakes them for the student's."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.data.prompts import held_out_prompts
from renio_pipeline.data.solutions import Solutions
from renio_pipeline.loop.invariants import age
from renio_pipeline.loop.run import Run
from renio_pipeline.metrics.registry import METRICS
from renio_pipeline.metrics.step_metrics import sample_records, step_metrics
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.stages.faults import KillsWorkers
from renio_pipeline.stages.off_policy import Draw, OffPolicyGenerators, with_off_policy
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.types import Continuation, ContinuationRequest, Prompt, Rollout, Version
from tests.fakes.stages import BATCH, EOS, FakeTeachers, config_of, kind, prompts_of, ratio, run_of, stages_of, step_of
from tests.unit.conftest import make_config

HALF: dict[str, Any] = {"data": {"problems": 8, "off_policy": {"share": 0.5}}}
BY_TEACHER: dict[str, Any] = {"data": {"problems": 8, "off_policy": {"share": 0.5, "source": "teacher"}}}
FLOAT32: dict[str, Any] = {"generator": {"dtype": "float32"}, "trainer": {"dtype": "float32"}}


@pytest.fixture(scope="module")
def found() -> Prepared:
    return prepare(config_of(**HALF))


@dataclass
class WritingTeachers(FakeTeachers):
    """Writes a fixed text; kills its workers at some prompts; the first text of many calls comes last."""

    text: Sequence[int] = (5, 6, 7)
    asked: list[list[ContinuationRequest]] = field(default_factory=list)
    poison: set[bytes] = field(default_factory=set)

    async def write(self, requests: Sequence[ContinuationRequest]) -> list[list[Continuation]]:
        self.asked.append(list(requests))
        await asyncio.sleep(0.02 if len(self.asked) == 1 else 0)
        if any(r.prompt_ids.tobytes() in self.poison for r in requests):
            raise KillsWorkers("it killed two workers")
        return [[Continuation(token_ids=np.array(self.text, np.int32), stop_reason="stop")] for _ in requests]


def made(found: Prepared, config: RunConfig, teachers: FakeTeachers | None = None, **more: Any) -> Stages:
    stages = stages_of(found, config)
    stages = replace(stages, teachers=teachers or stages.teachers)
    solutions = found.solutions if config.data.off_policy.source == "solution" else None
    return with_off_policy(stages, config, **({"solutions": solutions, "end_tokens": {}} | more))


def written(stages: Stages, prompts: Sequence[Prompt]) -> list[Rollout]:
    async def all_of() -> list[Rollout]:
        async with asyncio.timeout(10):
            return [r async for r in stages.generators.generate(prompts, 1.0)]

    return asyncio.run(all_of())


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 2**31 - 1), st.integers(1, 64))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_every_batch_has_the_share_and_the_same_samples_again(share: float, seed: int, size: int) -> None:
    draw = Draw(share, seed, size)
    counts = [sum(i in draw for i in range(batch * size, (batch + 1) * size)) for batch in range(20)]
    assert max(counts) - min(counts) <= 1
    assert abs(sum(counts) - 20 * size * share) < 1
    again = Draw(share, seed, size)
    assert [i in again for i in reversed(range(5 * size))] == [i in draw for i in range(5 * size)][::-1]
    assert -1 not in draw, "a held-out problem is the student's to answer"


def test_the_places_in_a_batch_and_the_seed_change_which() -> None:
    draw = Draw(0.25, 0, 16)
    places = [tuple(i % 16 for i in range(b * 16, b * 16 + 16) if i in draw) for b in range(200)]
    assert all(len(p) == 4 for p in places)
    assert np.bincount(np.concatenate(places), minlength=16).min() > 25, "a place is seldom drawn"
    assert [i in draw for i in range(200)] != [i in Draw(0.25, 1, 16) for i in range(200)]


def test_a_solution_is_a_response_that_ends_and_a_long_one_is_cut(found: Prepared) -> None:
    row = found.rows[0]
    solutions = Solutions(found.tokenizer, most=100, vocab_size=found.vocab_size)
    ids, stop = solutions.response(row)
    assert (found.tokenizer.decode(ids, skip_special_tokens=True), stop) == (row.solution, "stop")
    assert ids[-1] == found.tokenizer.eos_token_id
    exact, stop = Solutions(found.tokenizer, most=len(ids), vocab_size=found.vocab_size).response(row)
    assert (exact.tolist(), stop) == (ids.tolist(), "stop")
    cut, stop = Solutions(found.tokenizer, most=len(ids) - 1, vocab_size=found.vocab_size).response(row)
    assert (cut.tolist(), stop) == (ids[:-1].tolist(), "length")
    with pytest.raises(ConfigError, match=rf"solution of row '{row.id}' has token id \d+, but the smallest"):
        Solutions(found.tokenizer, most=100, vocab_size=int(ids.max())).response(row)


def test_a_step_trains_on_solutions_as_on_what_they_are(found: Prepared) -> None:
    config = config_of(**HALF)
    stages = made(found, config)
    result = asyncio.run(step_of(found, config, stages))
    (batch,) = stages.trainers.batches  # type: ignore[attr-defined]
    drawn = Draw(0.5, config.seed, BATCH)
    foreign = [i for i in range(BATCH) if i in drawn]
    own = [i for i in range(BATCH) if i not in drawn]
    assert len(foreign) == 3
    assert stages.generators.student.calls == [(own, 0.9)]  # type: ignore[attr-defined]
    assert [s.off_policy for s in batch.samples] == [i in foreign for i in range(BATCH)]
    prompts = {p.sample_id: p for p in prompts_of(found, config)}
    for i in foreign:
        sample = batch.samples[i]
        assert sample.response_ids.tolist() == found.tokenizer(prompts[i].row.solution)["input_ids"] + [EOS]
        assert np.isfinite(sample.student_logprobs).all()
        np.testing.assert_array_equal(sample.student_logprobs, result.student[i])
    raw = {i: math.exp(ratio(i)) if kind(i) != "correct" else 1.0 for i in own}
    mean = sum(raw.values()) / len(own)
    expected = [raw[i] / mean if i in raw else 1.0 for i in range(BATCH)]
    assert [s.weight for s in batch.samples] == pytest.approx(expected, rel=1e-5), "each part has a mean weight of 1"


def test_metrics_and_records_do_not_mistake_them_for_the_students(found: Prepared) -> None:
    config = config_of(**HALF)
    result = asyncio.run(step_of(found, config, made(found, config)))
    pools = {name: {"queue": 0, "restarts": 0} for name in ("generator", "teacher")}
    metrics = step_metrics(result, {"generator": 1, "teacher": 2}, pools)
    assert metrics.keys() <= METRICS.keys()
    assert metrics["off_policy/fraction"] == 0.5
    own = [s.rollout for s in result.scored if s.rollout.off_policy is None]
    assert metrics["filter/drawn"] == len(own) == 3
    assert metrics["filter/kept"] == 1
    assert metrics["tokens/generated"] == sum(len(r.token_ids) for r in own)
    assert metrics["reward/accuracy"] == np.mean([kind(r.sample_id) == "correct" for r in own])
    for record, scored in zip(sample_records(result), result.scored, strict=True):
        if scored.rollout.off_policy is None:
            assert (record["version"], "off_policy" in record) == ("0.0", False)
        else:
            assert (record["version"], record["off_policy"], record["verdict"]) == ("off-policy", "solution", None)
            assert np.isfinite(record["student_logprobs"]).all()


def test_pivotal_metrics_are_of_the_students_own_tokens(found: Prepared) -> None:
    config = config_of(**HALF)
    result = asyncio.run(step_of(found, config, made(found, config)))
    own = [i for i, s in enumerate(result.scored) if s.rollout.off_policy is None]
    tokens = sum(len(result.scored[i].rollout.token_ids) for i in own)
    assert result.weighed.metrics["pivotal/fraction"] == sum(len(result.weighed.pivotal[i]) for i in own) / tokens


def test_a_response_without_a_version_has_no_staleness(found: Prepared) -> None:
    config = config_of(**HALF)
    result = asyncio.run(step_of(found, config, made(found, config)))
    late = [s if s.rollout.off_policy else replace(s, rollout=replace(s.rollout, version=Version(3, 7))) for s in result.scored]
    assert age(late, Version(3, 8), 1) == 1
    assert age([s for s in late if s.rollout.off_policy], Version(3, 8), 0) == 0
    with pytest.raises(AssertionError, match=r"were not written by version 3\.8"):
        age(late, Version(3, 8), 0)


def test_a_batch_without_a_response_of_the_students_leaves_the_weightings_state(found: Prepared) -> None:
    changes = {"data": {"problems": 8, "off_policy": {"share": 0.95}}, "weighting": {"type": "renio", "normalization": "ema"}}
    config = config_of(**changes | {"batch_size": 1})
    stages = made(found, config)
    assert 0 in stages.generators.drawn  # type: ignore[attr-defined]
    result = asyncio.run(step_of(found, config, stages))
    assert result.weighed.state is None
    assert result.weighed.weights.tolist() == [1.0]
    pools = {name: {"queue": 0, "restarts": 0} for name in ("generator", "teacher")}
    metrics = step_metrics(result, {"generator": 1, "teacher": 2}, pools)
    assert np.isfinite(list(metrics.values())).all()


def test_with_the_trainers_log_probabilities_one_forward_is_for_all(found: Prepared) -> None:
    config = config_of(**HALF, student_logprobs="trainer")
    stages = made(found, config)
    asked: list[int] = []
    forward = stages.trainers.logprobs

    async def counted(batch: Any) -> Any:
        asked.append(len(batch.samples))
        return await forward(batch)

    stages.trainers.logprobs = counted  # type: ignore[method-assign]
    asyncio.run(step_of(found, config, stages))
    assert asked == [BATCH]


@pytest.mark.parametrize("together", [False, True])
def test_a_teacher_writes_with_the_samples_seed_and_ends_as_the_student_does(found: Prepared, together: bool) -> None:
    config = config_of(**BY_TEACHER, sampling={"temperature": 0.9, "top_p": 0.8, "top_k": 4, "stop_token_ids": [9]})
    teachers = WritingTeachers(text=(5, 9, 3))
    stages = made(found, config, teachers, end_tokens={"": ((9, 3),)}, together=together)
    rollouts = written(stages, prompts_of(found, config))
    foreign = [r for r in rollouts if r.off_policy == "teacher"]
    assert sorted(r.sample_id for r in rollouts) == list(range(BATCH))
    assert [r.token_ids.tolist() for r in foreign] == [[5, 3, 9]] * 3
    assert [len(call) for call in teachers.asked] == ([3] if together else [1, 1, 1])
    (one, *_), seeds = teachers.asked[0], {r.seed for call in teachers.asked for r in call}
    assert (one.temperature, one.top_p, one.top_k, one.max_tokens, one.stop_token_ids) == (0.9, 0.8, 4, 48, (3,))
    assert len(seeds) == 3
    again = WritingTeachers()
    written(made(found, config, again, together=together), prompts_of(found, config))
    assert {r.seed for call in again.asked for r in call} == seeds, "a resumed run asks for the same texts"


@pytest.mark.parametrize("together", [False, True])
def test_a_text_that_kills_its_workers_costs_its_own_sample_alone(found: Prepared, together: bool) -> None:
    config = config_of(**BY_TEACHER)
    prompts = prompts_of(found, config)
    bad = next(p for p in prompts if p.sample_id in Draw(0.5, config.seed, BATCH))
    said: list[tuple[int, str, str, str]] = []
    teachers = WritingTeachers(poison={bad.teacher_ids.tobytes()})
    stages = made(found, config, teachers, together=together, quarantine=lambda *given: said.append(given))
    rollouts = written(stages, prompts)
    alike = {p.sample_id for p in prompts if p.teacher_ids.tobytes() in teachers.poison} & {i for i, *_ in said}
    assert bad.sample_id in alike
    assert {r.sample_id for r in rollouts} == set(range(BATCH)) - alike
    assert said[0][1:] == ("its text by the teacher: it killed two workers", "teacher", bad.row.id)


def test_an_error_of_a_stream_ends_the_others(found: Prepared) -> None:
    config = config_of(**BY_TEACHER)

    class Failing(WritingTeachers):
        async def write(self, requests: Sequence[ContinuationRequest]) -> list[list[Continuation]]:
            raise RuntimeError("the engine refused it")

    ended: list[bool] = []
    stages = made(found, config, Failing())

    async def forever(prompts: Sequence[Prompt], temperature: float) -> AsyncIterator[Rollout]:
        try:
            await asyncio.sleep(60)
            yield stages.generators.student.write(prompts[0])  # type: ignore[attr-defined]
        finally:
            ended.append(True)

    stages.generators.student.generate = forever  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="the engine refused it"):
        written(stages, prompts_of(found, config))
    assert ended == [True]


def test_held_out_problems_are_the_students_to_answer(found: Prepared) -> None:
    stages = made(found, config_of(**HALF))
    prompts = held_out_prompts(found.held_out_ids, found.held_out)
    assert [r.off_policy for r in written(stages, prompts)] == [None] * len(prompts)


def test_without_a_share_the_stages_are_what_they_were(found: Prepared) -> None:
    config = config_of()
    stages = stages_of(found, config)
    assert with_off_policy(stages, config, solutions=None, end_tokens={}) is stages


def test_a_run_goes_through_and_its_report_reads_it(tmp_path: Path, found: Prepared) -> None:
    from renio_pipeline.report.facts import facts
    from renio_pipeline.report.recorded import read_runs
    from renio_pipeline.report.samples import read_samples

    plain = run_of(tmp_path, found, **HALF)
    stages = with_off_policy(plain.stages, plain.config, solutions=found.solutions, end_tokens={})
    own = {name: getattr(plain, name) for name in ("config", "prepared", "directory", "progress", "sinks")}
    run = Run(stages=stages, **own)
    asyncio.run(run.run())
    (recorded,) = read_runs([run.directory.path])
    samples = read_samples(recorded, [], 10_000)
    assert dict(facts(recorded, samples))["Off-policy"] == "50% of the samples are the rows' solutions, with a weight of 1"
    assert samples.reader["steps"][0]["version"].count("off-policy") == 3
    assert isinstance(run.stages.generators, OffPolicyGenerators)


REFUSED = [
    (
        {"share": 0.5},
        {"objective": {"type": "sampled"}},
        "objective sampled is an estimate over tokens that the student sampled",
    ),
    ({"share": 0.5}, {"filter": "incorrect"}, "filter incorrect chooses among the student's own responses"),
    ({"share": 1.0}, {}, "data.off_policy.share"),
    ({"share": -0.1}, {}, "data.off_policy.share"),
    ({"share": 0.5, "source": "nobody"}, {}, "data.off_policy.source"),
    (
        {"share": 0.5, "source": "teacher"},
        {"method": {"type": "opsd"}, "teacher": {}},
        "data.off_policy.source: method.type opsd shows the teacher the solution",
    ),
    (
        {"share": 0.5, "source": "teacher"},
        {"method": {"type": "opd", "privileged": True}},
        "data.off_policy.source: method.privileged shows the teacher the solution",
    ),
    (
        {"share": 0.5, "source": "teacher"},
        {"method": {"type": "opd", "privileged": True, "reason_first": True}},
        "with method.reason_first the teacher writes analyses",
    ),
    (
        {"share": 0.5, "source": "teacher"},
        {
            "teacher": {},
            "teachers": {"a": {"model": "embedded:teacher"}, "b": {"model": "embedded:teacher"}},
            "combine": {"a": 1, "b": 1},
        },
        "one teacher writes a response, and combine mixes several",
    ),
    (
        {"share": 0.5, "source": "teacher"},
        {"deterministic": True, "weighting": {"type": "adaptive"}, **FLOAT32},
        "in a deterministic run a teacher writes one thing at a time",
    ),
    (
        {"share": 0.5, "source": "teacher"},
        {"objective": {"type": "jsd"}, "teacher": {"model": "embedded:teacher", "type": "vllm"}},
        "data.off_policy.source=teacher: for objective jsd a vllm teacher returns hidden states",
    ),
]


@pytest.mark.parametrize(("section", "changes", "said"), REFUSED, ids=[said[:40] for *_, said in REFUSED])
def test_what_makes_no_sense_is_refused_by_its_key(section: dict[str, Any], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(data={"off_policy": section}, **changes)
    assert said in str(caught.value)


def test_rows_without_a_solution_are_refused_where_solutions_are_trained_on(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    with_one, without = {"id": "a", "problem": "1+2+3", "answer": "6"}, {"id": "b", "problem": "2+2+3", "answer": "7"}
    rows.write_text(json.dumps(with_one | {"solution": "1+2=3"}) + "\n" + json.dumps(without) + "\n")
    data = {"path": str(rows), "off_policy": {"share": 0.5}}
    with pytest.raises(ConfigError, match=r"data\.path: .*rows\.jsonl.* has no solution, which data\.off_policy trains on"):
        prepare(config_of(data=data, evaluate={"problems": 0}))
    prepare(config_of(data=data | {"off_policy": {"share": 0.5, "source": "teacher"}}, evaluate={"problems": 0}))
    rows.write_text(json.dumps(with_one | {"solution": "  "}) + "\n")
    with pytest.raises(ConfigError, match="has no solution"):
        prepare(config_of(data=data, evaluate={"problems": 0}))
