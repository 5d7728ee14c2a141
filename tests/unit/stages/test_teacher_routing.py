"""Several teachers: who scores what, and what is refused before anything starts. The pools are fakes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renio_pipeline.config import ConfigError, load, parse
from renio_pipeline.preflight import prepare
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.stages.teacher_routing import RoutedTeachers
from renio_pipeline.types import (
    Continuation,
    ContinuationRequest,
    Prompt,
    Rollout,
    Row,
    ScoredRollout,
    TeacherScores,
    Version,
)
from tests.unit.conftest import DEMO, make_config

TEACHER = {"model": "embedded:teacher", "dtype": "float32"}


@dataclass
class FakePool:
    """Scores one rollout at a time, slowly if told to; fails if told to."""

    size: int = 1
    pause: float = 0.0
    fails: bool = False
    seen: list[int] = field(default_factory=list)

    async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
        scored = []
        async for rollout in rollouts:
            if self.fails:
                raise RuntimeError("the teacher fell over")
            await asyncio.sleep(self.pause)
            self.seen.append(rollout.sample_id)
            scores = TeacherScores(sample_id=rollout.sample_id, logprobs=rollout.logprobs)
            scored.append(ScoredRollout(rollout=rollout, scores=scores))
        return scored

    async def write(self, requests: Sequence[ContinuationRequest]) -> list[list[Continuation]]:
        if self.fails:
            raise RuntimeError("the teacher fell over")
        return [[Continuation(token_ids=r.prompt_ids[:1] + self.size, stop_reason="stop")] * r.n for r in requests]

    def dispatch(self) -> None:
        pass

    async def busy_seconds(self) -> dict[str, float]:
        return {str(i): 1.0 for i in range(self.size)}


async def stream(teachers: list[str]) -> AsyncIterator[Rollout]:
    ids = np.zeros(3, np.int32)
    for i, teacher in reversed(list(enumerate(teachers))):
        prompt = Prompt(sample_id=i, row=Row(id=str(i), problem="", teacher=teacher), student_ids=ids, teacher_ids=ids)
        yield Rollout(prompt=prompt, token_ids=ids, logprobs=np.zeros(3, np.float32), stop_reason="stop", version=Version(0, 0))
        await asyncio.sleep(0)


def test_each_teacher_scores_the_rows_that_name_it_and_no_other() -> None:
    pools = {"maths": FakePool(size=2), "code": FakePool(pause=0.01)}
    routed = RoutedTeachers(pools)
    names = ["maths", "code", "code", "maths", "maths", "code"]
    scored = asyncio.run(routed.score(stream(names), 1))
    assert [s.rollout.sample_id for s in scored] == list(range(6))
    assert {name: sorted(pool.seen) for name, pool in pools.items()} == {"maths": [0, 3, 4], "code": [1, 2, 5]}
    assert routed.size == 3
    assert asyncio.run(routed.busy_seconds()) == {"maths/0": 1.0, "maths/1": 1.0, "code/0": 1.0}


def test_a_step_without_rows_of_a_teacher_does_not_wait_for_it() -> None:
    assert len(asyncio.run(RoutedTeachers({"maths": FakePool(), "code": FakePool()}).score(stream(["maths"] * 3), 1))) == 3
    assert asyncio.run(RoutedTeachers({"maths": FakePool()}).score(stream([]), 1)) == []


def test_one_teacher_that_fails_ends_the_step() -> None:
    routed = RoutedTeachers({"maths": FakePool(), "code": FakePool(fails=True)})
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(routed.score(stream(["maths", "code"] * 5), 1))
    assert "the teacher fell over" in str(caught.value.exceptions[0])


def test_each_teacher_writes_what_it_is_asked_and_texts_come_in_the_order_of_the_requests() -> None:
    routed = RoutedTeachers({"maths": FakePool(size=100), "code": FakePool(size=200)})
    names = ["code", "maths", "maths", "code"]
    requests = [
        ContinuationRequest(prompt_ids=np.array([i], np.int32), max_tokens=1, seed=0, n=1 + i, teacher=name)
        for i, name in enumerate(names)
    ]
    found = asyncio.run(routed.write(requests))
    assert [[int(text.token_ids[0]) for text in texts] for texts in found] == [[200], [101] * 2, [102] * 3, [203] * 4]
    with pytest.raises(ValueError, match="a request names teacher None; there are maths, code"):
        asyncio.run(routed.write([replace(requests[0], teacher=None)]))
    with pytest.raises(RuntimeError, match="the teacher fell over"):
        asyncio.run(RoutedTeachers({"code": FakePool(fails=True)}).write(requests[:1]))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    domains = ["maths", "code", "maths"]
    path.write_text("".join(json.dumps({"problem": "1+1", "id": i, "domain": d}) + "\n" for i, d in enumerate(domains)))
    return path


def config(rows: Path, **changes: Any) -> Any:
    shared = {
        "task": "plain",
        "data": {"path": str(rows), "fields": {"teacher": "domain"}},
        "evaluate": {"problems": 0},
        "max_response_tokens": 16,
        "teacher": {},
        "teachers": {"maths": TEACHER, "code": TEACHER},
    }
    return make_config(**(shared | changes))


def test_a_row_is_routed_by_the_field_that_the_configuration_names(rows: Path) -> None:
    prepared = prepare(config(rows))
    assert [row.teacher for row in prepared.rows] == ["maths", "code", "maths"]
    assert prepared.payload_token_bytes.keys() == {"maths", "code"}


def test_a_row_without_a_teacher_of_its_own_is_an_error_with_its_line(rows: Path) -> None:
    with pytest.raises(ConfigError, match=r"rows.jsonl, line 2 names teacher 'code'; teachers has maths, and 'domain'"):
        prepare(config(rows, teachers={"maths": TEACHER}))
    with pytest.raises(ConfigError, match=r"line 1 names no teacher; teachers has maths, code, and 'teacher' is the row's"):
        prepare(config(rows, data={"path": str(rows)}))


def test_every_teachers_tokenizer_is_compared_and_the_key_named(rows: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in DEMO.joinpath("teacher").iterdir():
        other.joinpath(file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["☃"] = vocabulary.pop("7")
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigError, match=r"teachers.code.model: the tokenizers of student .* disagree"):
        prepare(config(rows, teachers={"maths": TEACHER, "code": TEACHER | {"model": str(other)}}))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"teacher": TEACHER}, "teacher and teachers are both given"),
        ({"teachers": {}}, "teachers: names no teacher"),
        ({"teachers": {"a b": TEACHER}}, "teachers.a b: a teacher's name has letters, digits, _ and - only"),
        ({"teachers": {"maths": {}}}, "teachers.maths.model: required, unless method.type is opsd"),
        ({"method": {"type": "opsd"}}, "teachers: in opsd the teacher is the student itself"),
        ({"pools": {"teachers": {"physics": {}}}}, "pools.teachers.physics: there is no teacher of this name"),
        ({"teachers": {"maths": TEACHER | {"engine": {"dtype": "half"}}}},
         "teachers.maths.engine.dtype is set by the pipeline itself; set teachers.maths.dtype instead"),
        ({"teachers": {"maths": TEACHER | {"tensor_parallel": 2}}, "pools": {"teachers": {"maths": {"gpus": 1}}}},
         "pools.teachers.maths.gpus (1.0) must equal teachers.maths.tensor_parallel (2)"),
    ],
)  # fmt: skip
def test_teachers_that_cannot_work_are_refused(rows: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(rows, **changes)
    assert expected in str(caught.value)


def test_each_teacher_has_a_pool_of_its_own_size(rows: Path) -> None:
    found = config(rows, pools={"teacher": {"replicas": 2, "gpus": 1, "cpus": 3}, "teachers": {"code": {"replicas": 3}}})
    assert [(found.pool(f"teacher.{n}").gpus, found.pool(f"teacher.{n}").cpus) for n in ("maths", "code")] == [(1, 3)] * 2
    assert {name: found.pool(name).replicas for name in found.pool_names} == {
        "generator": 1,
        "teacher.maths": 2,
        "teacher.code": 3,
        "trainer": 1,
        "weighting": 1,
    }


def test_the_resolved_configuration_of_several_teachers_makes_the_same_run_again(rows: Path, tmp_path: Path) -> None:
    first = config(rows, run_dir=str(tmp_path / "run"))
    RunDirectory(first)
    assert load(first.directory / "config.yaml") == first == parse(first.model_dump())
