"""``method.reason_first``: whose analysis stands in which prompt, how often it is written, and what a resume shows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.run_dir.analyses import AnalysisLog
from renio_pipeline.stages.faults import KillsWorkers
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.stages.reason_first import ReasoningTeachers, with_analyses
from renio_pipeline.types import (
    Continuation,
    ContinuationRequest,
    Prompt,
    Rollout,
    ScoredRollout,
    TeacherScores,
    Version,
)
from tests.fakes.stages import FakeGenerators, FakeTeachers, FakeTrainers, InProcessWeighting, config_of

REASONS: dict[str, Any] = {"type": "opd", "privileged": True, "reason_first": {"max_tokens": 20, "temperature": 0.7}}
# Short, because the embedded models have little context.
TEXTS = {"reasoning": "{solution};{problem}?", "teacher": "{solution};<{reasoning}>;{problem}"}


DETERMINISTIC: dict[str, Any] = {
    "deterministic": True,
    "trainer": {"dtype": "float32"},
    "generator": {"dtype": "float32"},
}


def configured(**changes: Any) -> RunConfig:
    return config_of(**({"method": REASONS, "prompts": TEXTS, "samples_per_prompt": 2} | changes))


@pytest.fixture(scope="module")
def found() -> Prepared:
    return prepare(configured())


@dataclass
class WritingTeachers(FakeTeachers):
    """Writes the first tokens of a fixed text, as many as the seed says; keeps what it was asked and shown."""

    ids: Sequence[int] = ()
    asked: list[list[ContinuationRequest]] = field(default_factory=list)
    shown: dict[int, np.ndarray] = field(default_factory=dict)
    pause: Callable[[], Any] = lambda: asyncio.sleep(0)
    deadly: bytes = b""

    async def write(self, requests: Sequence[ContinuationRequest]) -> list[list[Continuation]]:
        self.asked.append(list(requests))
        await self.pause()
        if any(r.prompt_ids.tobytes() == self.deadly for r in requests):
            raise KillsWorkers("two workers died")
        return [[Continuation(token_ids=np.array(self.ids[: 5 + r.seed % 9], np.int32), stop_reason="stop")] for r in requests]

    async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
        scored = []
        async for r in rollouts:
            self.shown[r.sample_id] = r.prompt.teacher_ids
            scores = TeacherScores(sample_id=r.sample_id, logprobs=r.logprobs)
            scored.append(ScoredRollout(rollout=r, scores=scores))
        return sorted(scored, key=lambda s: s.rollout.sample_id)


@dataclass
class Scene:
    """The stage between a generator and a teacher that are fakes."""

    prepared: Prepared
    config: RunConfig
    log: AnalysisLog
    around: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = self.prepared.tokenizer("12+34=46;46-5=41;#41")["input_ids"]
        self.teachers = WritingTeachers(ids=ids)
        self.generators = FakeGenerators(self.prepared.tokenizer)
        made = Stages(
            generators=self.generators,
            teachers=self.teachers,
            weighting=InProcessWeighting(self.config),
            trainers=FakeTrainers(self.generators),
        )
        self.stages = with_analyses(made, self.config, self.prepared.analyses, self.log, **self.around)

    def prompts(self, *rows: int) -> list[Prompt]:
        prepared, n = self.prepared, self.config.samples_per_prompt
        return [
            Prompt(
                sample_id=n * row + k,
                row=prepared.rows[row],
                student_ids=prepared.prompt_ids[row],
                teacher_ids=prepared.teacher_ids[row],
            )
            for row in rows
            for k in range(n)
        ]

    def step(self, *rows: int) -> list[int]:
        async def go() -> list[ScoredRollout]:
            async with asyncio.timeout(30):
                return await self.stages.teachers.score(self.stages.generators.generate(self.prompts(*rows), 1.0), 1)

        return [s.rollout.sample_id for s in asyncio.run(go())]

    @property
    def asked(self) -> list[ContinuationRequest]:
        return [r for call in self.teachers.asked for r in call]


def scene(found: Prepared, path: Path | None = None, around: dict[str, Any] | None = None, **changes: Any) -> Scene:
    return Scene(found, configured(**changes), AnalysisLog(path), around or {})


def test_each_problem_is_analysed_once_and_its_responses_are_scored_after_that_analysis(found: Prepared) -> None:
    made = scene(found)
    assert made.step(0, 1, 2) == [0, 1, 2, 3, 4, 5]
    assert len(made.asked) == 3
    assert {(r.max_tokens, r.temperature, r.n) for r in made.asked} == {(20, 0.7, 1)}
    assert len({r.seed for r in made.asked}) == 3
    texts = set()
    for sample_id, ids in made.teachers.shown.items():
        row = found.rows[sample_id // 2]
        (request,) = [r for r in made.asked if row.problem in found.tokenizer.decode(r.prompt_ids)]
        text = found.tokenizer.decode(made.teachers.ids[: 5 + request.seed % 9])
        prompt = found.tokenizer.decode(ids)
        assert row.solution is not None
        assert row.solution in prompt
        assert f";<{text}>;" in prompt
        texts.add(text)
    assert len(texts) > 1
    made.step(0, 2)
    assert len(made.asked) == 3, "they are known by now"


def test_a_resumed_run_shows_the_recorded_texts_and_asks_for_the_others_alone(found: Prepared, tmp_path: Path) -> None:
    path = tmp_path / "analyses.jsonl"
    first = scene(found, path)
    first.step(0, 1)
    again = scene(found, path)
    again.teachers.ids = again.prepared.tokenizer("999999999999999999")["input_ids"]  # it would write another text now
    again.step(0, 1, 2)
    assert len(again.asked) == 1
    for sample_id in range(4):
        np.testing.assert_array_equal(again.teachers.shown[sample_id], first.teachers.shown[sample_id])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["row"] for line in lines} == {row.id for row in found.rows[:3]}
    assert all(line["tokens"] >= 5 and line["truncated"] is False and line["version"] == "0.0" for line in lines)


def test_the_seed_is_the_problems_whatever_the_order_and_the_runs(found: Prepared) -> None:
    forth, back, other = scene(found), scene(found), scene(found, seed=1)
    forth.step(0, 1)
    back.step(1, 0)
    other.step(0, 1)
    seeds = [{r.prompt_ids.tobytes(): r.seed for r in made.asked} for made in (forth, back, other)]
    assert seeds[0] == seeds[1]
    assert seeds[0].keys() == seeds[2].keys()
    assert set(seeds[0].values()).isdisjoint(seeds[2].values())


def test_a_teacher_with_new_weights_writes_anew_and_one_that_went_back_does_not(found: Prepared) -> None:
    now = [Version(0, 0)]
    made = scene(found, around={"version": lambda: now[0]})
    made.step(0)
    now[0] = Version(0, 4)
    made.step(0)
    assert len(made.asked) == 2
    now[0] = Version(1, 4)  # restarted from that version
    made.step(0)
    assert len(made.asked) == 2


def test_analyses_are_asked_for_with_the_responses_unless_a_filter_drops_some(found: Prepared) -> None:
    async def asked_before_the_first_response(made: Scene) -> int:
        responses = made.stages.generators.generate(made.prompts(0, 1, 2), 1.0)
        await asyncio.sleep(0.01)
        count = len(made.asked)
        await made.stages.teachers.score(responses, 1)
        assert len(made.asked) == 3
        return count

    assert asyncio.run(asked_before_the_first_response(scene(found))) == 3
    assert asyncio.run(asked_before_the_first_response(scene(found, filter="incorrect"))) == 0


def test_a_row_with_a_teacher_prompt_of_its_own_is_shown_that_and_has_no_analysis(found: Prepared) -> None:
    made = scene(found)
    row = replace(found.rows[0], teacher_prompt=(("user", "1+1"),))

    async def go() -> None:
        prompts = [replace(p, row=row) for p in made.prompts(0)]
        await made.stages.teachers.score(made.stages.generators.generate(prompts, 1.0), 1)

    asyncio.run(go())
    assert made.asked == []
    assert "1+1" in found.tokenizer.decode(made.teachers.shown[0])


def test_held_out_problems_have_none(found: Prepared) -> None:
    made = scene(found)

    async def go() -> None:
        prompt = made.prompts(0)[0]
        negative = Prompt(sample_id=-1, row=prompt.row, student_ids=prompt.student_ids, teacher_ids=prompt.student_ids)
        assert len([r async for r in made.stages.generators.generate([negative], 1.0)]) == 1

    asyncio.run(go())
    assert made.asked == []


def test_a_deterministic_run_asks_for_a_draws_analyses_together_and_scores_in_order(found: Prepared) -> None:
    made = scene(found, **DETERMINISTIC)
    made.step(2, 0, 1)
    assert [len(call) for call in made.teachers.asked] == [3]
    assert list(made.teachers.shown) == [0, 1, 2, 3, 4, 5]


def test_an_analysis_that_comes_late_delays_its_own_responses_alone(found: Prepared) -> None:
    made = scene(found)

    async def go() -> None:
        gate = asyncio.Event()
        late = made.prompts(1)[0]
        (late_ids,) = found.analyses.asked([late.row]) if found.analyses else ()

        async def pause() -> None:
            if made.teachers.asked[-1][0].prompt_ids.tobytes() == late_ids.tobytes():
                await gate.wait()

        made.teachers.pause = pause
        scoring = asyncio.ensure_future(
            made.stages.teachers.score(made.stages.generators.generate(made.prompts(0, 1, 2), 1.0), 1)
        )
        while len(made.teachers.shown) < 4:
            await asyncio.sleep(0.001)
        assert sorted(made.teachers.shown) == [0, 1, 4, 5]
        gate.set()
        assert len(await scoring) == 6

    asyncio.run(go())


@pytest.mark.parametrize(("deterministic", "most"), [(True, 1), (False, 2)])
def test_other_texts_take_turns_with_analyses_in_a_deterministic_run(found: Prepared, deterministic: bool, most: int) -> None:
    """In one queue together, what is written in one batch would depend on time."""
    scene = Scene(found, configured(**DETERMINISTIC if deterministic else {}), AnalysisLog(None))
    at_a_time = [0]

    async def counted() -> None:
        at_a_time.append(at_a_time[-1] + 1)
        await asyncio.sleep(0.01)
        at_a_time.append(at_a_time[-1] - 1)

    scene.teachers.pause = counted
    text = ContinuationRequest(prompt_ids=found.prompt_ids[0], max_tokens=4, seed=1)

    async def go() -> None:
        async with asyncio.timeout(30):
            scoring = asyncio.create_task(
                scene.stages.teachers.score(scene.stages.generators.generate(scene.prompts(0), 1.0), 1)
            )
            await asyncio.gather(scoring, scene.stages.teachers.write([text]))

    asyncio.run(go())
    assert max(at_a_time) == most


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_problem_whose_analysis_kills_workers_is_left_out_with_its_samples_and_no_other(
    found: Prepared, deterministic: bool
) -> None:
    out: list[tuple[Any, ...]] = []
    changes = DETERMINISTIC if deterministic else {}
    made = scene(found, around={"quarantine": lambda *told: out.append(told)}, **changes)
    assert found.analyses is not None
    made.teachers.deadly = found.analyses.asked([found.rows[1]])[0].tobytes()
    assert made.step(0, 1, 2) == [0, 1, 4, 5]
    assert sorted(out) == [(i, "its analysis: two workers died", "teacher", found.rows[1].id) for i in (2, 3)]
    asked = len(made.asked)
    assert made.step(1) == []
    assert len(made.asked) == asked, "it is not tried again"


def test_a_call_that_fails_or_was_cancelled_ends_the_step_and_is_made_again(found: Prepared) -> None:
    made = scene(found)

    async def go() -> None:
        async def fail() -> None:
            raise RuntimeError("the text was cancelled")

        made.teachers.pause = fail
        with pytest.raises(RuntimeError, match="the text was cancelled"):
            await made.stages.teachers.score(made.stages.generators.generate(made.prompts(0), 1.0), 1)
        made.teachers.pause = lambda: asyncio.sleep(0)
        assert len(await made.stages.teachers.score(made.stages.generators.generate(made.prompts(0), 1.0), 1)) == 2

    asyncio.run(go())


def test_the_first_empty_and_the_first_truncated_one_are_told(found: Prepared) -> None:
    notes: list[str] = []
    made = scene(found, around={"note": notes.append})

    async def write(requests: Sequence[ContinuationRequest]) -> list[list[Continuation]]:
        kinds = {0: ([], "stop"), 1: (made.teachers.ids[:9], "length")}
        rows = [
            next(i for i, row in enumerate(found.rows) if row.problem in found.tokenizer.decode(r.prompt_ids)) for r in requests
        ]
        return [
            [Continuation(token_ids=np.array(ids, np.int32), stop_reason=reason)]  # type: ignore[arg-type]
            for ids, reason in (kinds[row % 2] for row in rows)
        ]

    made.teachers.write = write  # type: ignore[method-assign]
    made.step(0, 1, 2, 3)
    assert len(notes) == 2
    assert any("is empty; its teacher sees the solution without one" in note for note in notes)
    assert any("was cut at 9 tokens; raise method.reason_first.max_tokens" in note for note in notes)
    assert ";<>;" in found.tokenizer.decode(made.teachers.shown[0])


def test_the_engines_context_has_room_for_the_analysis_and_for_the_prompt_that_asks_for_it(found: Prepared) -> None:
    assert found.analyses is not None
    response = configured().max_response_tokens + 1
    longest = max(len(found.analyses.taught(row, "")) for row in found.rows) + 20
    asked = max(map(len, found.analyses.asked(list(found.rows)))) + 20
    assert found.context == max(longest + response, asked + 1)
    row, text = found.rows[0], "1+2=3;" * 500
    assert len(found.analyses.taught(row, text)) <= found.context - response
    huge = REASONS | {"reason_first": {"max_tokens": 10**6}}
    with pytest.raises(ConfigError, match=r"\d+ of them for method.reason_first; .* lower max_response_tokens or method"):
        prepare(configured(method=huge))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": REASONS | {"privileged": False}}, "method.reason_first: the teacher analyses the reference"),
        ({"prompts": {"teacher": "{problem} {solution}"}}, "prompts.teacher: has no {reasoning}, which method.reason_first"),
        ({"method": {"type": "opd"}}, "{reasoning} is what method.reason_first"),
        ({"data": {"sources": [{"task": "arithmetic", "prompts": {"teacher": "{problem}"}}]}},
         "data.sources.0.prompts.teacher: has no {reasoning}"),
        ({"prompts": {"reasoning": "{solution}"}}, "prompts.reasoning: the text has no {problem}"),
        ({"prompts": {"reasoning": "{problem} {reasoning}"}}, "{reasoning} is no placeholder here"),
        ({"objective": {"type": "jsd"}}, "method.reason_first: for objective jsd a vllm teacher returns hidden states"),
        ({"method": REASONS | {"reason_first": {"temperature": 3}}}, "method.reason_first.temperature (3.0) may be at most"),
        ({"method": REASONS | {"reason_first": {"max_token": 3}}}, "max_token: unknown key; did you mean max_tokens"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_the_key(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        configured(**changes)
    assert told in str(error.value)


def test_a_switch_is_enough_and_off_is_the_default() -> None:
    on = configured(method=REASONS | {"reason_first": True}).method.reason_first
    assert on is not None
    assert on.max_tokens == 2048
    assert configured(method=REASONS | {"reason_first": False}, prompts={}).method.reason_first is None
    plain = configured(method={"type": "opd"}, prompts={})
    assert plain.method.reason_first is None
    stages = Scene(prepare(plain), plain, AnalysisLog(None)).stages
    assert not isinstance(stages.teachers, ReasoningTeachers)
