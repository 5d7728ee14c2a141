"""A teacher with another tokenizer as a stage: what its pool is asked, and what a step gets. The pool is a fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from tokenizers import normalizers

from renio_pipeline.alignment.spans import NO_SPAN
from renio_pipeline.stages.other_tokenizer import OtherTokenizerTeachers
from renio_pipeline.stages.teacher_routing import RoutedTeachers
from renio_pipeline.stages.teacher_stage import as_one_stage
from renio_pipeline.types import ContinuationRequest, Rollout, ScoredRollout, TeacherScores
from tests.unit.alignment.test_retokeniser import KINDS, between, rollout
from tests.unit.alignment.trained import END, normalised
from tests.unit.conftest import make_config
from tests.unit.stages.test_teacher_routing import TEACHER, FakePool

STUDENT, OTHER = KINDS["byte level"], KINDS["few merges"]


@dataclass
class FakeScorer(FakePool):
    """Gives each of the tokens that it is asked about −1."""

    asked: dict[int, list[int]] = field(default_factory=dict)

    async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
        scored = []
        for s in await super().score(rollouts, step):
            ids = s.rollout.token_ids
            self.asked[s.rollout.sample_id] = ids.tolist()
            scores = TeacherScores(sample_id=s.rollout.sample_id, logprobs=np.full(len(ids), -1, np.float32), replica="0")
            scored.append(ScoredRollout(rollout=s.rollout, scores=scores))
        return scored


def written(text: str, sample_id: int) -> Rollout:
    found = rollout([*STUDENT.encode(text).ids, STUDENT.token_to_id(END)])
    return replace(found, prompt=replace(found.prompt, sample_id=sample_id))


async def stream(*rollouts: Rollout) -> AsyncIterator[Rollout]:
    for each in rollouts:
        yield each


def test_the_pool_is_asked_in_its_own_tokens_and_the_step_gets_the_students() -> None:
    pool, quarantined = FakeScorer(size=3), list[tuple[int, str, str, str]]()
    retokeniser = between(STUDENT, OTHER)
    stage = OtherTokenizerTeachers(pool, retokeniser, "teacher", lambda *what: quarantined.append(what))
    rollouts = [written("the lazy dog", 2), written("12+34=46;", 5)]
    scored = asyncio.run(stage.score(stream(*rollouts), 1))
    assert [s.rollout for s in scored] == rollouts
    for s in scored:
        asked = pool.asked[s.rollout.sample_id]
        assert OTHER.decode(asked, skip_special_tokens=True) == STUDENT.decode(s.rollout.token_ids.tolist())
        assert asked[-1] == OTHER.token_to_id(END)
        assert (retokeniser.read(s.rollout).spans.student != NO_SPAN).all()
        np.testing.assert_allclose(s.scores.logprobs.sum(), -len(asked), rtol=1e-5)
    assert quarantined == []
    assert (stage.size, asyncio.run(stage.busy_seconds())) == (3, {"0": 1.0, "1": 1.0, "2": 1.0})


def test_a_sample_that_the_teacher_cannot_read_is_quarantined_and_the_others_are_scored() -> None:
    quarantined: list[tuple[int, str, str, str]] = []
    lower = between(STUDENT, normalised(OTHER, normalizers.Lowercase()))
    stage = OtherTokenizerTeachers(FakeScorer(), lower, "teacher.maths", lambda *what: quarantined.append(what))
    scored = asyncio.run(stage.score(stream(written("fox", 0), written("FOX", 1), written("dog", 2)), 1))
    assert [s.rollout.sample_id for s in scored] == [0, 2]
    ((sample_id, reason, pool, row),) = quarantined
    assert (sample_id, pool, row) == (1, "teacher.maths", "a")
    assert "'FOX' is read as 'fox'" in reason


def test_it_continues_nothing_of_the_students() -> None:
    stage = OtherTokenizerTeachers(FakePool(), between(STUDENT, OTHER), "teacher", print)
    with pytest.raises(RuntimeError, match="pool teacher reads texts in tokens of its own"):
        asyncio.run(stage.write([ContinuationRequest(prompt_ids=np.zeros(1, np.int32), max_tokens=1, seed=0)]))


def test_of_several_teachers_those_with_their_own_tokenizer_are_wrapped() -> None:
    config = make_config(teacher={}, teachers={"maths": TEACHER, "code": TEACHER})
    pools = {"maths": FakePool(), "code": FakePool()}
    stage = as_one_stage(config, pools, {"code": between(STUDENT, OTHER)}, print)
    assert isinstance(stage, RoutedTeachers)
    assert stage.pools["maths"] is pools["maths"]
    assert isinstance(stage.pools["code"], OtherTokenizerTeachers)
