"""The stages around a recording: ``renio score``'s, which ask for nothing twice, and a run's, which find what was promised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renio_pipeline.cli import main
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.loop.run import Run
from renio_pipeline.loop.step import learn
from renio_pipeline.loop.timing import Utilisation
from renio_pipeline.models import info
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.preflight.offline import check_offline
from renio_pipeline.preflight.prompts import recorded_clock
from renio_pipeline.recordings.fits import check_fits
from renio_pipeline.recordings.manifest import RecordedTeacher
from renio_pipeline.recordings.recorder import Recorder, clock_of, recorder
from renio_pipeline.recordings.recording import Recording
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.stages.outcomes import Collected, SkippedStep
from renio_pipeline.stages.payload_budget import PayloadBudget
from renio_pipeline.stages.protocols import Stages
from renio_pipeline.stages.recorded import recorded_pools, with_recorded
from renio_pipeline.stages.recorded_inputs import manifest_of
from renio_pipeline.stages.scoring import Scoring
from renio_pipeline.stages.teacher_routing import RoutedTeachers
from renio_pipeline.types import Prompt, Rollout, ScoredRollout, TeacherScores, TopK
from tests.fakes.stages import BATCH, FIRST, FakeGenerators, FakeTeachers, Notes, config_of, stages_of, step_of
from tests.unit.data.test_template_clock import LLAMA, Late
from tests.unit.recordings.made import manifest

K = 4
RECORDED = {"type": "recorded", "path": "scores"}
LIVE: dict[str, Any] = {"objective": {"type": "top_k_forward_kl", "k": K}, "data": {"problems": 64}}
FEW: dict[str, Any] = {"data": {"problems": 8}}


@dataclass
class Counting(FakeTeachers):
    """Scores with a made-up table, and notes which samples it was asked for."""

    asked: list[int] = field(default_factory=list)
    refuses: set[int] = field(default_factory=set)  # what its pool quarantines
    unsure: set[int] = field(default_factory=set)  # for what it gives NaN
    dies_at: int | None = None  # the call that ends the process

    async def score(self, rollouts: AsyncIterator[Rollout], step: int) -> list[ScoredRollout]:
        if step == self.dies_at:
            raise RuntimeError("the machine is gone")
        found = []
        async for rollout in rollouts:
            self.asked.append(rollout.sample_id)
            if rollout.sample_id in self.refuses:
                continue
            ids = np.stack([rollout.token_ids, *(np.full(len(rollout.token_ids), i, np.int32) for i in range(K))], axis=1)
            logprobs = np.full(ids.shape, -2 - rollout.sample_id / 10, np.float32)
            if rollout.sample_id in self.unsure:
                logprobs[1] = np.nan
            table = {rollout.sample_id: TopK(token_ids=ids, logprobs=logprobs)}
            scores = TeacherScores(sample_id=rollout.sample_id, logprobs=logprobs[:, 0].copy(), payload=table)
            found.append(ScoredRollout(rollout=rollout, scores=scores))
        return sorted(found, key=lambda s: s.rollout.sample_id)


@pytest.fixture(scope="module")
def found() -> Prepared:
    return prepare(config_of(**LIVE))


def scoring_of(found: Prepared, to: Recorder, teachers: FakeTeachers, config: RunConfig, **more: Any) -> Scoring:
    values: dict[str, Any] = {
        "generators": FakeGenerators(found.tokenizer), "teachers": teachers, "budget": PayloadBudget(2**40, BATCH, 1),
        "config": config, "recorder": to, "decode": found.tokenizer.decode, "fetch": lambda table: table,
        "done": lambda number: None, "note": print,
    }  # fmt: skip
    return Scoring(**values | more)


def prompts_of(found: Prepared, config: RunConfig, count: int) -> list[Prompt]:
    return Cursor(found.prompt_ids, found.rows, config).take(count)


def score(folder: Path, found: Prepared, teachers: FakeTeachers, count: int = 3 * BATCH, **changes: Any) -> Scoring:
    config = config_of(**LIVE | changes)
    with recorder(folder, manifest_of(config, found.tokenizer, found.vocab_size)) as to:
        scoring = scoring_of(found, to, teachers, config)
        asyncio.run(scoring.record(prompts_of(found, config, count)))
        return scoring


def test_every_response_is_recorded_with_its_own_signals(tmp_path: Path, found: Prepared) -> None:
    teachers = Counting()
    scoring = score(tmp_path / "scores", found, teachers)
    assert sorted(teachers.asked) == list(range(3 * BATCH))
    recording = scoring.recorder.recording
    for i, entry in recording.by_sample.items():
        ids, logprobs = recording.response(entry)
        told, table = recording.signals(entry, ids, K)
        assert table is not None
        assert np.unique(told).tolist() == np.unique(table.logprobs).tolist() == [np.float32(-2 - i / 10)]
        assert np.unique(logprobs).tolist() == [-0.5]


def test_one_that_died_goes_on_where_it_was_and_asks_for_nothing_twice(tmp_path: Path, found: Prepared) -> None:
    teachers = Counting(dies_at=3)
    with pytest.raises(RuntimeError, match="the machine is gone"):
        score(tmp_path / "scores", found, teachers)
    first = set(teachers.asked)
    assert 0 < len(first) < 3 * BATCH
    teachers.dies_at = None
    teachers.asked.clear()
    scoring = score(tmp_path / "scores", found, teachers)
    assert sorted(scoring.recorder.recording.by_sample) == list(range(3 * BATCH))
    kept = set(range(3 * BATCH)) - set(teachers.asked)
    assert len(kept) >= BATCH, "the parts that were complete are asked for again"
    teachers.asked.clear()
    score(tmp_path / "scores", found, teachers, count=4 * BATCH)
    assert sorted(teachers.asked) == list(range(3 * BATCH, 4 * BATCH)), "more responses are added to those that are there"


def test_what_a_pool_quarantines_is_tried_again_the_next_time(tmp_path: Path, found: Prepared) -> None:
    teachers = Counting(refuses={2, 7})
    scoring = score(tmp_path / "scores", found, teachers)
    assert set(range(3 * BATCH)) - set(scoring.recorder.recording.by_sample) == {2, 7}
    teachers.refuses.clear()
    teachers.asked.clear()
    score(tmp_path / "scores", found, teachers)
    assert sorted(teachers.asked) == [2, 7]


@dataclass
class Repeating(FakeGenerators):
    """Writes the same response to a prompt each time, whatever the sample."""

    def write(self, prompt: Prompt) -> Rollout:
        return replace(super().write(replace(prompt, sample_id=1)), prompt=prompt)


def test_equal_responses_to_a_prompt_are_scored_once(tmp_path: Path, found: Prepared) -> None:
    config = config_of(**LIVE, samples_per_prompt=3)
    teachers = Counting()
    with recorder(tmp_path / "scores", manifest_of(config, found.tokenizer, found.vocab_size)) as to:
        scoring = scoring_of(found, to, teachers, config, generators=Repeating(found.tokenizer))
        asyncio.run(scoring.record(prompts_of(found, config, 2 * BATCH)))
    assert (len(teachers.asked), scoring.reused, len(to.recording)) == (4, 8, 12)
    teachers.asked.clear()
    other = config_of(**LIVE, samples_per_prompt=3, seed=0, max_response_tokens=47)
    manifest = manifest_of(other, found.tokenizer, found.vocab_size)
    with recorder(tmp_path / "more", manifest, [tmp_path / "scores"]) as to:
        scoring = scoring_of(found, to, teachers, other, generators=Repeating(found.tokenizer))
        asyncio.run(scoring.record(prompts_of(found, other, 2 * BATCH)))
    assert (teachers.asked, scoring.reused, len(to.recording)) == ([], 12, 12)


def recorded_config(folder: Path, **changes: Any) -> RunConfig:
    return config_of(**LIVE | {"teacher": {"type": "recorded", "path": str(folder)}} | changes)


def with_recording(found: Prepared, config: RunConfig, budget: PayloadBudget | None = None) -> Stages:
    pools = recorded_pools(config, found.recordings, lambda table: table, budget)
    return with_recorded(replace(stages_of(found, config), teachers=pools[""]), config, found.recordings)


def test_a_step_trains_on_the_recording_and_weighs_it(tmp_path: Path, found: Prepared) -> None:
    score(tmp_path / "scores", found, Counting())
    config = recorded_config(tmp_path / "scores")
    prepared = prepare(config)
    stages = with_recording(prepared, config)
    result = asyncio.run(step_of(prepared, config, stages))
    (batch,) = stages.trainers.batches  # type: ignore[attr-defined]
    assert [s.sample_id for s in batch.samples] == list(range(BATCH))
    assert all(s.off_policy for s in batch.samples)
    assert stages.generators.student.calls == []  # type: ignore[attr-defined]
    assert [s.payload[s.sample_id].logprobs[0, 0] for s in batch.samples] == [np.float32(-2 - i / 10) for i in range(BATCH)]
    assert len({s.weight for s in batch.samples}) > 1, "recorded responses are weighed as the student's own"
    assert result.staleness == 0
    assert all(np.all(s.student_logprobs == -0.5) for s in batch.samples), "what the writer gave it"


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_whole_run_takes_every_step_from_the_recording_and_evaluates_the_student(
    tmp_path: Path, found: Prepared, ahead: int
) -> None:
    score(tmp_path / "scores", found, Counting())
    changes = {**LIVE, "teacher": {"type": "recorded", "path": str(tmp_path / "scores")}, "max_staleness": ahead}
    config = config_of(run_dir=str(tmp_path / "run"), **changes)
    prepared, directory = prepare(config), RunDirectory(config)
    budget = PayloadBudget(BATCH * 48 * 40, BATCH, 48 * 40)  # for one step
    stages = replace(with_recording(prepared, config, budget), payload=budget)
    run = Run(config=config, prepared=prepared, stages=stages, directory=directory, progress=Notes(), sinks=[])
    asyncio.run(run.run())
    batches = stages.trainers.batches  # type: ignore[attr-defined]
    published = [version.number for version in stages.trainers.versions]  # type: ignore[attr-defined]
    assert published == [0, 0, 3], "for the start and the two evaluations, not for each step"
    assert [[s.sample_id for s in batch.samples] for batch in batches] == [
        list(range(step * BATCH, step * BATCH + BATCH)) for step in range(3)
    ]
    assert [ids for ids, _ in stages.generators.student.calls] == [[-1, -2, -3, -4, -5]] * 2  # type: ignore[attr-defined]


def test_a_run_without_an_evaluation_needs_no_generators(tmp_path: Path, found: Prepared) -> None:
    score(tmp_path / "scores", found, Counting())
    config = recorded_config(tmp_path / "scores", run_dir=str(tmp_path / "run"), evaluate={"problems": 0})
    prepared, directory = prepare(config), RunDirectory(config)
    stages = with_recording(prepared, config)
    assert stages.generators.size == 0
    asyncio.run(Run(config=config, prepared=prepared, stages=stages, directory=directory, progress=Notes(), sinks=[]).run())
    assert len(stages.trainers.batches) == config.steps  # type: ignore[attr-defined]


def test_a_response_with_nan_is_left_out_and_named_and_the_others_are_recorded(tmp_path: Path, found: Prepared) -> None:
    config, notes = config_of(**LIVE), list[str]()
    prompts = prompts_of(found, config, 2 * BATCH)
    with recorder(tmp_path / "scores", manifest_of(config, found.tokenizer, found.vocab_size)) as to:
        asyncio.run(scoring_of(found, to, Counting(unsure={1}), config, note=notes.append).record(prompts))
        assert sorted(to.recording.by_sample) == [i for i in range(2 * BATCH) if i != 1]
        assert [p.sample_id for p in to.missing(prompts)] == [1], "it counts as lost, and is tried again"
    (note,) = notes
    assert note.startswith("sample 1 (row ")
    assert "is left out: teacher_logprobs has nan at token 1" in note


def test_a_step_that_is_skipped_wakes_the_steps_that_wait_for_its_room(tmp_path: Path, found: Prepared) -> None:
    score(tmp_path / "scores", found, Counting())
    config = recorded_config(tmp_path / "scores")
    prepared, budget = prepare(config), PayloadBudget(BATCH * 48 * 40, BATCH, 48 * 40)
    stages = replace(with_recording(prepared, config, budget), payload=budget)

    async def two_steps() -> None:
        assert stages.teachers is not None
        budget.open(1)
        budget.open(2)
        second = asyncio.ensure_future(
            stages.teachers.score(stages.generators.generate(prompts_of(prepared, config, BATCH), 1.0), 2)
        )
        await asyncio.sleep(0.05)
        assert not second.done()
        since = await Utilisation.now(stages)
        skipped = await learn(stages, config, Collected(step=1, judged={}, scored=[], began=0.0, seconds={}), FIRST, since)
        assert isinstance(skipped, SkippedStep)
        async with asyncio.timeout(20):
            assert len(await second) == BATCH

    asyncio.run(two_steps())


def told_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Students' chat templates read the time."""
    read = info.read_tokenizer

    def with_clock(*args: Any) -> Any:
        tokenizer = read(*args)
        tokenizer.chat_template = LLAMA
        return tokenizer

    monkeypatch.setattr(info, "read_tokenizer", with_clock)


def test_a_recording_is_good_on_later_days_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told_the_hour(monkeypatch)
    folder, config = tmp_path / "scores", config_of(**LIVE)
    first = prepare(config)
    with recorder(folder, manifest_of(config, first.tokenizer, first.vocab_size, first.clock)) as to:
        asyncio.run(scoring_of(first, to, Counting(), config).record(prompts_of(first, config, 3 * BATCH)))
    monkeypatch.setattr("renio_pipeline.data.template_clock.datetime", Late)
    assert prepare(config).clock != first.clock, "the next day"
    later = prepare(recorded_config(folder))
    assert later.clock == first.clock
    assert all(map(np.array_equal, later.prompt_ids, first.prompt_ids))
    again = prepare(config, clock=clock_of(folder))
    with recorder(folder, manifest_of(config, again.tokenizer, again.vocab_size, again.clock)) as to:
        assert to.missing(prompts_of(again, config, 3 * BATCH)) == []


def test_recordings_of_different_days_do_not_go_together_where_the_template_reads_the_day(tmp_path: Path) -> None:
    teachers = {"a": RECORDED, "b": RECORDED}
    config = config_of(**LIVE | {"teachers": teachers, "teacher": {}})
    days = ("2026-01-02T10:30:00", "2026-01-03T10:30:00")
    recordings = {name: Recording(tmp_path, manifest(clock=day), "") for name, day in zip("ab", days, strict=True)}
    with pytest.raises(
        ConfigError, match=rf"teachers\.b\.path: .* which was {days[1]} for this .* {days[0]} for that of teachers\.a"
    ):
        recorded_clock(config, recordings, LLAMA)
    assert recorded_clock(config, recordings, "no time") is None
    assert recorded_clock(config, {"a": recordings["a"]}, LLAMA) == days[0]


def test_payloads_wait_for_room(tmp_path: Path, found: Prepared) -> None:
    score(tmp_path / "scores", found, Counting())
    config = recorded_config(tmp_path / "scores")
    prepared = prepare(config)
    budget = PayloadBudget(BATCH * 48 * 40, BATCH, 48 * 40)
    stages = with_recording(prepared, config, budget)

    async def two_steps() -> None:
        prompts, teachers = prompts_of(prepared, config, 2 * BATCH), stages.teachers
        assert teachers is not None
        budget.open(1)
        budget.open(2)
        second = asyncio.ensure_future(teachers.score(stages.generators.generate(prompts[BATCH:], 1.0), 2))
        await asyncio.sleep(0.05)
        assert not second.done(), "the second step took what the first may need"
        first = await teachers.score(stages.generators.generate(prompts[:BATCH], 1.0), 1)
        assert len(first) == BATCH
        budget.close(1)
        teachers.dispatch()
        assert len(await second) == BATCH
        assert budget.held > 0

    async def in_time() -> None:
        async with asyncio.timeout(20):
            await two_steps()

    asyncio.run(in_time())


def test_a_run_that_draws_more_than_was_recorded_is_refused_by_the_row(tmp_path: Path, found: Prepared) -> None:
    score(tmp_path / "scores", found, Counting(), count=BATCH - 1)
    with pytest.raises(ConfigError, match=r"teacher\.path: .*scores has no response to row '.*' \(it has 5, of other rows\)"):
        prepare(recorded_config(tmp_path / "scores"))


def test_a_longer_run_takes_recorded_responses_again(tmp_path: Path) -> None:
    score(tmp_path / "scores", prepare(config_of(**LIVE | FEW)), Counting(), count=8, **FEW)
    config = recorded_config(tmp_path / "scores", steps=20, **FEW)
    prepared = prepare(config)
    (recording,) = prepared.recordings.values()
    drawn = [recording.find(p, config.seed) for p in prompts_of(prepared, config, 20 * BATCH)]
    assert [entry.row_id for entry in drawn] == [p.row.id for p in prompts_of(prepared, config, 20 * BATCH)]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"temperature": 2.0, "sampling": {}},
            r"at τ 1 \(temperature in manifest\.json\), and the run's is 2; set temperature=1",
        ),
        ({"objective": {"type": "top_k_forward_kl", "k": K + 1}}, rf"has the {K} likeliest tokens .* set objective\.k={K}"),
        ({"max_response_tokens": 32}, r"responses of up to 48 tokens .* set max_response_tokens=48"),
        ({"prompts": {"student": "Do this: {problem}"}}, r"has a response to row '.*', but to another prompt"),
    ],
)
def test_a_recording_that_does_not_fit_is_refused_with_the_key(
    tmp_path: Path, found: Prepared, changes: dict[str, Any], text: str
) -> None:
    score(tmp_path / "scores", found, Counting())
    with pytest.raises(ConfigError, match=text):
        prepare(recorded_config(tmp_path / "scores", **changes))


def test_a_recording_of_another_tokenizer_or_teacher_is_refused_before_anything_is_loaded(
    tmp_path: Path, found: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(tmp_path / "scores", found, Counting())
    path = tmp_path / "scores" / "manifest.json"
    text = path.read_text()
    with pytest.raises(ConfigError, match=r"teacher\.model: 'm/other' given, and .* has the signals of 'embedded:teacher'"):
        prepare(config_of(**LIVE | {"teacher": {"type": "recorded", "path": str(tmp_path / "scores"), "model": "m/other"}}))
    print_ = manifest_of(config_of(**LIVE), found.tokenizer, found.vocab_size).tokenizer
    path.write_text(text.replace(print_, "0" * 32))
    with pytest.raises(ConfigError, match=r"in tokens of another tokenizer .*\(tokenizer in manifest\.json"):
        prepare(recorded_config(tmp_path / "scores"))
    path.write_text(text.replace(f'"vocab_size": {found.vocab_size}', f'"vocab_size": {found.vocab_size - 1}'))
    prepare(recorded_config(tmp_path / "scores"))  # a smaller vocabulary is the recorded teacher's
    path.write_text(text.replace(f'"vocab_size": {found.vocab_size}', f'"vocab_size": {found.vocab_size + 1}'))
    with pytest.raises(ConfigError, match=r"vocab_size in manifest\.json.*record again with this student"):
        prepare(recorded_config(tmp_path / "scores"))


def test_a_recording_of_a_teacher_with_a_name_and_one_without_are_told_apart() -> None:
    named, unnamed = {"maths": RecordedTeacher(model="T", version="t1")}, {"": RecordedTeacher(model="T", version="t1")}
    made = partial(manifest, temperature=1.0, top_k=K, max_response_tokens=48)
    single = config_of(**LIVE | {"teacher": RECORDED})
    with pytest.raises(ConfigError, match=r"teacher\.path: .*'maths'\), and `teacher` has none; use `teachers` with"):
        check_fits(made(teachers=named), single, "", "k1", "S")
    several = config_of(**LIVE | {"teachers": {"maths": RECORDED}, "teacher": {}})
    with pytest.raises(ConfigError, match=r"teachers\.maths\.path: .* is of a single teacher .*; use `teacher` in"):
        check_fits(made(teachers=unnamed), several, "maths", "k1", "S")
    check_fits(made(teachers=named), several, "maths", "k1", "S")


def test_a_start_does_not_look_for_the_end_tokens_of_a_recorded_teacher(tmp_path: Path, found: Prepared) -> None:
    score(tmp_path / "scores", found, Counting())
    teacher = {"type": "recorded", "path": str(tmp_path / "scores"), "end_tokens": {"no token": "of the student"}}
    assert prepare(config_of(**LIVE | {"teacher": teacher})).recordings.keys() == {""}


def test_an_offline_check_lists_a_recording_that_is_not_here(tmp_path: Path, found: Prepared) -> None:
    config = recorded_config(tmp_path / "scores")
    assert f"teacher.path: {tmp_path / 'scores'}" in check_offline(config)[1]
    score(tmp_path / "scores", found, Counting())
    assert not any("scores" in what for what in check_offline(config)[1])
    elsewhere = recorded_config(tmp_path / "scores", student="some/student-that-is-not-here")
    assert any(what.startswith("the recordings: ") for what in check_offline(elsewhere)[1])


def test_rows_of_other_teachers_are_the_students_to_answer(tmp_path: Path, found: Prepared) -> None:
    rows = [replace(row, teacher="maths" if i % 2 else "code") for i, row in enumerate(found.rows)]
    live = {"maths": {"model": "embedded:teacher"}, "code": {"model": "embedded:teacher"}}
    config = config_of(**LIVE | {"teachers": live, "teacher": {}})
    prompts = Cursor(found.prompt_ids, rows, config).take(BATCH)
    with recorder(tmp_path / "scores", manifest_of(config, found.tokenizer, found.vocab_size)) as to:
        asyncio.run(scoring_of(found, to, Counting(), config).record(prompts))
        recording = to.recording
    config = config_of(
        **LIVE | {"teachers": live | {"code": {"type": "recorded", "path": str(tmp_path / "scores")}}, "teacher": {}}
    )
    teachers = RoutedTeachers({"maths": Counting(), **recorded_pools(config, {"code": recording}, lambda table: table)})
    stages = with_recorded(replace(stages_of(found, config), teachers=teachers), config, {"code": recording})

    async def scored() -> Sequence[ScoredRollout]:
        return await teachers.score(stages.generators.generate(prompts, 1.0), 1)

    result = asyncio.run(scored())
    assert [s.rollout.sample_id for s in result] == list(range(BATCH))
    assert [s.rollout.off_policy for s in result] == ["recorded" if p.row.teacher == "code" else None for p in prompts]
    assert {s.rollout.prompt.row.teacher for s in result} == {"maths", "code"}


def test_a_teacher_without_workers_is_not_called_idle(tmp_path: Path, found: Prepared) -> None:
    score(tmp_path / "scores", found, Counting())
    config = recorded_config(tmp_path / "scores")
    prepared = prepare(config)
    result = asyncio.run(step_of(prepared, config, with_recording(prepared, config)))
    assert result.idle.keys() == {"idle/generator", "idle/trainer"}


def test_renio_plan_says_why_it_does_not_plan_a_recorded_run(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "configs/demo.yaml", "teacher.type=recorded", "teacher.path=scores"]
    assert main(arguments) == 2
    assert "teacher.type: renio plan shares GPUs out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["objective.type=jsd"], "objective.type: objective jsd needs the teacher's whole distribution"),
        (["--reuse", "nowhere"], "--reuse: there is no folder 'nowhere'"),
        (["teacher.type=recorded", "teacher.path=scores"], "teacher.type: renio score needs a teacher that answers"),
        ([], "is not empty and no recording"),
    ],
)
def test_renio_score_refuses_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    (tmp_path / "other").write_text("…")
    out = tmp_path / "scores" if arguments else tmp_path
    assert main(["score", "--config", "configs/demo.yaml", "--out", str(out), *arguments]) == 2
    assert text in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]
