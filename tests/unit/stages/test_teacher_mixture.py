"""Several teachers on each sample: their mixture, and what is refused before anything starts. The pools are fakes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renio_pipeline.config import ConfigError, load
from renio_pipeline.config.combining import check_one_each
from renio_pipeline.preflight import prepare
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.stages.teacher_mixture import CombinedTeachers, mixture_logprobs
from renio_pipeline.stages.teacher_stage import as_one_stage
from renio_pipeline.types import Mixture, Rollout, ScoredRollout, TeacherScores
from tests.unit.conftest import make_config
from tests.unit.stages.test_teacher_routing import TEACHER, FakePool, stream

WEIGHTS = {"maths": 0.75, "code": 0.25}


@dataclass
class FakeScorer(FakePool):
    """Gives every token the same log-probability, and nothing of the samples that it quarantines."""

    logprob: float = 0.0
    quarantines: set[int] = field(default_factory=set)
    name: str = ""

    async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
        found = [s.rollout for s in await super().score(rollouts, step) if s.rollout.sample_id not in self.quarantines]
        return [
            ScoredRollout(
                rollout=r,
                scores=TeacherScores(
                    sample_id=r.sample_id,
                    logprobs=np.full(3, self.logprob, np.float32),
                    payload=f"ref of {self.name}",
                    payload_bytes=10,
                    replica=f"{self.name}/0",
                    times=(1.0 + len(self.name), 10.0 + len(self.name)),
                ),
            )
            for r in found
        ]


def pools(**of_maths: Any) -> dict[str, FakeScorer]:
    return {
        "maths": FakeScorer(logprob=np.log(0.5), name="maths", **of_maths),
        "code": FakeScorer(logprob=np.log(0.1), pause=0.003, size=2, name="code"),
    }


def test_all_teachers_score_each_sample_and_their_probabilities_are_mixed() -> None:
    made = pools()
    scored = asyncio.run(CombinedTeachers(made, WEIGHTS).score(stream(["maths"] * 4), 1))
    assert [s.rollout.sample_id for s in scored] == [0, 1, 2, 3]
    assert {name: sorted(pool.seen) for name, pool in made.items()} == {"maths": [0, 1, 2, 3], "code": [0, 1, 2, 3]}
    for s in scored:
        np.testing.assert_allclose(s.scores.logprobs, np.log(0.75 * 0.5 + 0.25 * 0.1), rtol=1e-6)
        assert s.scores.logprobs.dtype == np.float32
        assert s.scores.payload == Mixture(parts=("ref of maths", "ref of code"), weights=(0.75, 0.25))
        assert (s.scores.payload_bytes, s.scores.replica, s.scores.times) == (20, "maths/0+code/0", (5.0, 15.0))


def test_a_sample_that_one_teacher_quarantines_is_dropped_from_all() -> None:
    scored = asyncio.run(CombinedTeachers(pools(quarantines={1, 2}), WEIGHTS).score(stream(["maths"] * 4), 1))
    assert [s.rollout.sample_id for s in scored] == [0, 3]
    assert asyncio.run(CombinedTeachers(pools(), WEIGHTS).score(stream([]), 1)) == []


def test_one_teacher_that_fails_ends_the_step() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(CombinedTeachers(pools(fails=True), WEIGHTS).score(stream(["maths"] * 4), 1))
    assert "the teacher fell over" in str(caught.value.exceptions[0])


@given(st.lists(st.tuples(st.floats(0.01, 5), st.lists(st.floats(-80, 0), min_size=3, max_size=3)), min_size=1, max_size=4))
def test_a_mixtures_log_probability_is_the_log_of_the_weighted_mean(teachers: list[tuple[float, list[float]]]) -> None:
    total = sum(weight for weight, _ in teachers)
    weights = [weight / total for weight, _ in teachers]
    found = mixture_logprobs([np.array(own, np.float32) for _, own in teachers], weights)
    expected = np.log(
        sum(w * np.exp(np.array(own, np.float32).astype(np.float64)) for w, (_, own) in zip(weights, teachers, strict=True))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_one_teacher_alone_is_the_mixture_of_itself_digit_for_digit() -> None:
    own = np.array([-0.1, -7.3, -80.0, -np.inf], np.float32)
    assert mixture_logprobs([own], [1.0]).tolist() == own.tolist()
    found = mixture_logprobs([own, np.full(4, -np.inf, np.float32)], [0.5, 0.5])
    np.testing.assert_allclose(found, own + np.log(0.5), rtol=1e-6)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"problem": "1+1", "id": i}) + "\n" for i in range(3)))
    return path


def config(rows: Path, **changes: Any) -> Any:
    shared = {
        "task": "plain", "data": {"path": str(rows)}, "evaluate": {"problems": 0}, "max_response_tokens": 16, "batch_size": 4,
        "teacher": {}, "teachers": {"maths": TEACHER, "code": TEACHER}, "combine": {"maths": 3, "code": 1},
    }  # fmt: skip
    return make_config(**(shared | changes))


def test_rows_need_not_name_a_teacher_and_every_teachers_payload_counts(rows: Path) -> None:
    combined = prepare(config(rows))
    assert [row.teacher for row in combined.rows] == [None] * 3
    alone = prepare(config(rows, teachers=None, combine=None, teacher=TEACHER))
    assert combined.payload_bytes == 2 * alone.payload_bytes
    with pytest.raises(ConfigError, match=r"payload.max_bytes: .* teachers of combine\), and payload.max_bytes is"):
        prepare(config(rows, payload={"max_bytes": combined.payload_bytes - 1}))


def test_weights_are_divided_by_their_sum(rows: Path) -> None:
    assert config(rows).mixture == WEIGHTS
    assert isinstance(as_one_stage(config(rows), pools(), {}, print), CombinedTeachers)


def test_the_resolved_configuration_makes_the_same_run_again(rows: Path, tmp_path: Path) -> None:
    first = config(rows, run_dir=str(tmp_path / "run"))
    RunDirectory(first)
    assert load(first.directory / "config.yaml") == first


def test_a_command_that_examines_single_teachers_refuses_a_mixture(rows: Path) -> None:
    with pytest.raises(ConfigError, match="combine: renio probe examines the teachers one at a time"):
        check_one_each(config(rows), "renio probe")
    check_one_each(config(rows, combine=None), "renio probe")


READS_ONE = """
from renio_pipeline.objectives import FewEntries, MicroBatch, top_k

class ReadsOne(FewEntries):
    @property
    def payload(self):
        return top_k(4)

    def entries(self, batch):
        return batch.targets[:, None], lambda logprobs, rows: -logprobs[:, 0]
"""


def test_an_objective_of_ones_own_that_reads_one_payload_is_refused(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(READS_ONE)
    objective = {"type": "custom", "path": f"{tmp_path / 'mine.py'}:ReadsOne"}
    with pytest.raises(ConfigError, match="combine: objective ReadsOne reads the payload of one teacher"):
        config(rows, objective=objective)
    (tmp_path / "both.py").write_text(READS_ONE.replace("    @property", "    mixes = True\n    @property"))
    assert config(rows, objective={"type": "custom", "path": f"{tmp_path / 'both.py'}:ReadsOne"}).combine


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"combine": {"maths": 1, "cod": 1}},
         "combine.cod: there is no teacher of this name; did you mean code? allowed: maths, code"),
        ({"combine": {"maths": 0, "code": 0}}, "combine.maths: a weight must be above 0, not 0"),
        ({"combine": {"maths": -1, "code": 2}}, "combine.maths: a weight must be above 0, not -1"),
        ({"combine": {"maths": 1}}, "combine: gives teacher 'code' no weight"),
        ({"combine": {}}, "combine: gives teacher 'maths' no weight"),
        ({"combine": {"maths": "much", "code": 1}}, "combine.maths"),
        ({"teachers": None, "teacher": TEACHER}, "combine: mixes the probabilities of several teachers, and there is one"),
        ({"method": {"reason_first": True, "privileged": True}}, "method.reason_first: one teacher writes the analysis"),
        ({"data": {"sources": [{"path": "a.jsonl", "teacher": "code"}]}}, "data.sources.0.teacher: with combine all teachers"),
    ],
)  # fmt: skip
def test_mixtures_that_cannot_work_are_refused(rows: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(rows, **changes)
    assert expected in str(caught.value)
