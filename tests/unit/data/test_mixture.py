"""``data.sources``: several files with their own tasks and teachers, as one run reads them; and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renio_pipeline.cli.prompts import shown
from renio_pipeline.config import ConfigError, RunConfig, load
from renio_pipeline.config.yaml_text import document
from renio_pipeline.data.problems import first_rows, problems_of
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.data.settling import settle
from renio_pipeline.evaluation.sets import data_sets
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.preflight.offline import check_offline, not_here
from renio_pipeline.run_dir.data_record import write_stretch
from renio_pipeline.run_dir.resume import check_same_run
from renio_pipeline.tasks import make_task
from tests.unit.conftest import make_config

SUMS = [{"id": i, "problem": f"{i}+1", "answer": str(i + 1)} for i in range(1, 7)]
WORDS = [{"problem": f"say {i}", "answer": f"{i}", "solution": f"It is {i}."} for i in range(1, 5)]
TEACHER = {"model": "embedded:teacher"}


def write(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def mixed(folder: Path, *, sums: Any = None, words: Any = None, **changes: Any) -> RunConfig:
    """Two sources, with the keys given changed in each. ``rows``: what its file has."""
    sums = {"rows": SUMS, "task": "arithmetic", "weight": 3} | (sums or {})
    words = {"rows": WORDS, "task": "plain"} | (words or {})
    sources = []
    for name, keys in (("sums", sums), ("words", words)):
        rows = keys.pop("rows")
        sources.append({"path": write(folder / f"{name}.jsonl", rows)} | keys)
    config = {
        "data": {"sources": sources},
        "evaluate": {"problems": 0},
        "max_response_tokens": 16,
        "run_dir": str(folder / "run"),
    }
    return make_config(**(config | changes))


def ids(prepared: Prepared, config: RunConfig, count: int = 40) -> list[str]:
    cursor = Cursor(prepared.prompt_ids, prepared.rows, config, teacher_ids=prepared.teacher_ids, stretch=prepared.stretch)
    return [prompt.row.id for prompt in cursor.take(count)]


def test_rows_keep_their_source_and_ids_that_collide_are_told_apart(tmp_path: Path) -> None:
    prepared = prepare(mixed(tmp_path))
    assert [row.id for row in prepared.rows] == [f"sums/{i}" for i in range(1, 7)] + [f"words/{i}" for i in range(1, 5)]
    assert {row.source for row in prepared.rows} == {"sums", "words"}


@pytest.mark.slow
def test_each_row_is_asked_and_judged_by_its_sources_task(tmp_path: Path) -> None:
    config = mixed(tmp_path, sums={"task": "maths"})
    task = make_task(*config.task_recipe)
    (training, _) = problems_of(config, task)
    one, word = training.rows[0], training.rows[6]
    assert task.messages(one) == make_task("maths").messages(replace(one, id="1"))
    assert task.messages(word) == [{"role": "user", "content": "say 1"}]
    assert [task.verify(one, "\\boxed{2}"), task.verify(word, "\\boxed{2}"), task.verify(word, "Well.\n1")] == [
        "correct", "incorrect", "correct",
    ]  # fmt: skip
    assert task.slow, "maths is judged in worker processes"


def test_the_shares_of_the_prompts_are_the_weights(tmp_path: Path) -> None:
    config = mixed(tmp_path)
    found = ids(prepare(config), config, 400)
    assert abs(sum(i.startswith("sums/") for i in found) - 300) <= 3


def test_a_resume_draws_what_the_uninterrupted_run_draws(tmp_path: Path) -> None:
    config = mixed(tmp_path, samples_per_prompt=2)
    prepared = prepare(config)
    straight = ids(prepared, config, 60)
    config.directory.mkdir()
    write_stretch(config.directory, config.data, settle(config, prepared.stretch, 0).stretch, prepared.clock)
    again = prepare(config)
    settled = settle(config, again.stretch, 26)
    assert settled.notes == ()
    cursor = Cursor(again.prompt_ids, again.rows, config, 26, stretch=settled.stretch)
    assert [prompt.row.id for prompt in cursor.take(34)] == straight[26:]


def test_the_place_of_a_source_in_the_list_means_nothing(tmp_path: Path) -> None:
    config = mixed(tmp_path)
    turned = config.model_copy(update={"data": config.data.model_copy(update={"sources": config.data.sources[::-1]})})  # type: ignore[index]
    assert ids(prepare(config), config) == ids(prepare(turned), turned)


def test_every_row_of_a_source_goes_to_its_teacher(tmp_path: Path) -> None:
    rows = [{**row, "who": name} for row, name in zip(WORDS, ["a", "b", "a", "b"], strict=True)]
    words = {"rows": rows, "fields": {"teacher": "who"}}
    config = mixed(tmp_path, sums={"teacher": "b"}, words=words, teacher={}, teachers={"a": TEACHER, "b": TEACHER})
    assert [row.teacher for row in prepare(config).rows] == ["b"] * 6 + ["a", "b", "a", "b"]


def test_a_row_that_names_no_teacher_is_refused_with_the_key_that_names_one_for_all(tmp_path: Path) -> None:
    config = mixed(tmp_path, sums={"teacher": "b"}, teacher={}, teachers={"a": TEACHER, "b": TEACHER})
    with pytest.raises(
        ConfigError, match=r"words.jsonl, line 1 names no teacher; .*data.sources.1.teacher names one for all rows"
    ):
        prepare(config)


def test_a_generating_task_stands_beside_a_file(tmp_path: Path) -> None:
    config = mixed(tmp_path, sums={"path": None, "problems": 9, "task_options": {"terms": 2}, "name": "made"})
    prepared = prepare(config)
    made = [row for row in prepared.rows if row.source == "made"]
    assert len(made) == 9
    assert [row.problem for row in made] == [row.problem for row in make_task("arithmetic", {"terms": 2}).rows("train", 9)]


def test_a_source_has_its_own_prompts_and_the_others_the_runs(tmp_path: Path) -> None:
    config = mixed(
        tmp_path, prompts={"instruction": "Think."}, sums={"prompts": {"student": "Sum: {problem}"}, "task": "plain"}
    )
    text = "\n".join(shown(config, 1))
    assert "row 'sums/1' of source sums" in text
    assert "row 'words/1' of source words" in text
    assert text.count("Think.") == 2  # of the words alone: the student's and the evaluation's
    assert "Sum: 1+1" in text


def test_held_out_problems_are_each_sources_own(tmp_path: Path) -> None:
    held = write(tmp_path / "held.jsonl", [{"problem": "3+3", "answer": "6"}, {"problem": "4+4", "answer": "8"}])
    config = mixed(tmp_path, sums={"held_out_path": held}, evaluate={"problems": 1})
    prepared = prepare(config)
    assert [(row.id, row.source) for row in prepared.held_out] == [("sums/1", "sums")]
    (found,) = data_sets(config, [], [], samples=None, limit=None)
    assert (found.name, found.task.name, [row.problem for row in found.rows]) == ("sums", "arithmetic", ["3+3"])
    (named,) = data_sets(config, [], [f"words={write(tmp_path / 'more.jsonl', WORDS)}"], samples=None, limit=None)
    assert (named.task.name, len(named.rows)) == ("plain", 4)
    with pytest.raises(ConfigError, match=r"--data: 'other' is the name of none of data.sources.*use sums, words"):
        data_sets(config, [], [f"other={held}"], samples=None, limit=None)
    with pytest.raises(ConfigError, match=r"evaluate.problems: no source has held-out problems"):
        prepare(mixed(tmp_path, evaluate={"problems": 1}))


def test_a_source_of_weight_0_is_left_out_and_said(tmp_path: Path) -> None:
    config = mixed(tmp_path, words={"weight": 0, "path": str(tmp_path / "not there.jsonl")})
    prepared = prepare(config)
    assert {row.source for row in prepared.rows} == {"sums"}
    assert "data.sources.1.weight: 0, so this source is left out" in prepared.notes
    assert "words" not in config.task_label


def test_first_rows_are_of_every_source(tmp_path: Path) -> None:
    config = mixed(tmp_path)
    found = first_rows(config, make_task(*config.task_recipe), 2)
    assert [row.id for row in found] == ["sums/1", "sums/2", "words/1", "words/2"]


def test_a_missing_solution_names_the_row_and_the_sources_key(tmp_path: Path) -> None:
    config = mixed(tmp_path, method={"type": "opsd"}, teacher={})
    said = r"data.sources.0.path: .*sums.jsonl, line 1 has no solution.*data.sources.0.fields.solution"
    with pytest.raises(ConfigError, match=said):
        prepare(config)


def test_what_is_not_here_is_named_by_its_source(tmp_path: Path) -> None:
    config = mixed(tmp_path, words={"path": "some/data-set"})
    assert not_here(config) == ["data.sources.1.path: some/data-set"]
    assert "data.sources.1.path: some/data-set" in check_offline(config)[1]


def test_the_longest_prompt_and_rows_left_out_are_those_of_each_source(tmp_path: Path) -> None:
    rows = [*WORDS, {"problem": "x" * 60, "answer": "1"}]
    config = mixed(tmp_path, words={"rows": rows})
    config = config.model_copy(update={"data": config.data.model_copy(update={"max_prompt_tokens": 30})})
    prepared = prepare(config)
    assert len(prepared.rows) == 10
    assert any("1 of 5 problems left out" in note and "words.jsonl, line 5" in note for note in prepared.notes)


def begun(folder: Path, **changes: Any) -> RunConfig:
    """A run that has recorded what it reads."""
    config = mixed(folder, **changes)
    config.directory.mkdir()
    prepared = prepare(config)
    write_stretch(config.directory, config.data, prepared.stretch, prepared.clock)
    return config


def refusal(config: RunConfig, position: int = 5) -> str:
    with pytest.raises(ConfigError) as caught:
        settle(config, prepare(config).stretch, position)
    return str(caught.value)


def test_a_resume_names_the_source_that_changed_by_its_file(tmp_path: Path) -> None:
    config = begun(tmp_path)
    write(tmp_path / "words.jsonl", [*WORDS[:2], {"problem": "other", "answer": "1"}, WORDS[3]])
    text = refusal(config)
    assert f"data.sources.1.path: {tmp_path}/words.jsonl: 1 row added (line 3), 1 row removed (line 3 before)" in text
    assert "sums.jsonl" not in text
    assert "data.changed=continue" in text


def test_other_weights_and_other_sources_are_changes_too(tmp_path: Path) -> None:
    config = begun(tmp_path)
    assert "data.sources.0.weight: sums: 0.5 of the prompts are of this source, and 0.75 were" in refusal(
        mixed(tmp_path, sums={"weight": 1})
    )
    text = refusal(mixed(tmp_path, words={"name": "talk"}))
    assert "data.sources: words: the source is not among data.sources any more" in text
    assert "data.sources.1: talk: a new source of 4 rows" in text
    rounded = mixed(tmp_path, sums={"weight": 0.3 * 3}, words={"weight": 0.3})  # the same shares, nearly
    found = settle(rounded, prepare(rounded).stretch, 5)
    assert found.notes == ()
    assert [part.share for part in found.stretch.parts] == [0.75, 0.25]
    doubled = mixed(tmp_path, sums={"weight": 6}, words={"weight": 2})
    assert settle(doubled, prepare(doubled).stretch, 5).notes == ()
    assert config.directory.exists()


def test_a_resume_that_may_goes_on_with_the_new_data_of_one_source(tmp_path: Path) -> None:
    config = begun(tmp_path)
    before = ids(prepare(config), config, 60)
    write(tmp_path / "words.jsonl", WORDS[:3])
    data = config.data.model_copy(update={"changed": "continue"})
    config = config.model_copy(update={"data": data})
    prepared = prepare(config)
    found = settle(config, prepared.stretch, 10)
    assert any("words.jsonl" in note for note in found.notes)
    cursor = Cursor(prepared.prompt_ids, prepared.rows, config, 10, stretch=found.stretch)
    after = [prompt.row.id for prompt in cursor.take(50)]
    sums = [i for i in before if i.startswith("sums/")]
    assert [i for i in after if i.startswith("sums/")] == sums[-sum(i.startswith("sums/") for i in after) :]
    assert [i[:4] for i in after] == [i[:4] for i in before[10:]], "the sources come in the order that they came in"
    assert "words/4" not in after


def test_one_source_cannot_become_several_in_the_middle_of_a_run(tmp_path: Path) -> None:
    config = begun(tmp_path)
    single = make_config(
        task="plain", data={"path": str(tmp_path / "words.jsonl"), "changed": "continue"}, evaluate={"problems": 0},
        max_response_tokens=16, run_dir=str(tmp_path / "run"),
    )  # fmt: skip
    assert "the run has read several sources, and there is a single one now" in refusal(single)
    assert settle(single, prepare(single).stretch, 0).notes
    assert config.data.sources is not None


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "all weights 0": ({"sums": {"weight": 0}, "words": {"weight": 0}}, "data.sources: the weight of every source is 0"),
    "negative": ({"sums": {"weight": -1}}, "data.sources.0.weight: Input should be greater than or equal to 0"),
    "no number": ({"sums": {"weight": "much"}}, "data.sources.0.weight:"),
    "unknown teacher": (
        {"sums": {"teacher": "c"}, "teacher": {}, "teachers": {"a": TEACHER}}, "sources.0.teacher: 'c' is not in teachers; ",
    ),
    "one teacher": ({"sums": {"teacher": "c"}}, "data.sources.0.teacher: 'c' is given, and the run has one teacher alone"),
    "two teachers": (
        {"sums": {"teacher": "a", "fields": {"teacher": "x"}}, "teacher": {}, "teachers": {"a": TEACHER}},
        "data.sources.0.teacher names the teacher of every row, and data.sources.0.fields.teacher",
    ),
    "same name": ({"sums": {"name": "words"}}, "data.sources.1.name: 'words' is the name of data.sources.0 too"),
    "bad name": ({"sums": {"name": "a/b"}}, "data.sources.0.name:"),
    "neither path nor task": ({"sums": {"path": None, "task": None}}, "data.sources.0.path: required, unless"),
    "unknown key": ({"sums": {"wieght": 2}}, "data.sources.0.wieght: unknown key; did you mean weight?"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "said"), BAD.values(), ids=BAD)
def test_sources_that_cannot_be_mixed_are_refused_by_their_key(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        mixed(tmp_path, **given)
    assert said in str(caught.value)


def test_the_same_file_twice_is_refused_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(ConfigError, match=r"data.sources.1.path: .*is the path of data.sources.0 too.*raise that one's weight"):
        mixed(tmp_path, words={"path": f"{tmp_path}/x/../sums.jsonl", "name": "b"})


def test_one_file_gives_two_sources_with_a_task_each(tmp_path: Path) -> None:
    rows = [{**row, "data_source": "sums"} for row in SUMS] + [{**row, "data_source": "words"} for row in WORDS]
    path = write(tmp_path / "all.jsonl", rows)
    sums, words = ({"path": path, "name": name, "only": {"data_source": name}} for name in ("sums", "words"))
    prepared = prepare(mixed(tmp_path, sums=sums, words=words))
    assert [(row.source, row.line) for row in prepared.rows] == [("sums", i) for i in range(1, 7)] + [
        ("words", i) for i in range(7, 11)
    ]
    with pytest.raises(ConfigError, match=r"data.sources.1.path: .*is the path of data.sources.0 too"):
        mixed(tmp_path, sums=sums, words=words | {"only": sums["only"]})


def test_a_path_beside_sources_is_refused(tmp_path: Path) -> None:
    for key, value in (("path", "a.jsonl"), ("held_out_path", "b.jsonl"), ("preset", "gsm8k"), ("fields", {"answer": "x"})):
        said = rf"data.{key} and data.sources are both given; each source has a {key} of its own"
        with pytest.raises(ConfigError, match=said):
            make_config(data={"sources": [{"path": "x.jsonl"}], key: value})
    with pytest.raises(ConfigError, match=r"data.sources: names no source"):
        make_config(data={"sources": []})


def test_a_plain_task_without_a_path_says_whose(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task plain generates no problems: set data.sources.1.path"):
        prepare(mixed(tmp_path, words={"path": None}))


def test_an_override_reaches_one_source_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(document(mixed(tmp_path).model_dump(mode="json")))
    found = load(path, ["data.sources.1.weight=5", "data.sources.1.fields.answer=gold"])
    assert [s.weight for s in found.data.sources or ()] == [3, 5]
    assert found.data.sources is not None
    assert found.data.sources[1].fields == {"answer": "gold"}
    with pytest.raises(ConfigError, match=r"data.sources.2: there is no such entry; data.sources has 2, counted from 0"):
        load(path, ["data.sources.2.weight=5"])


@pytest.mark.slow
def test_own_tasks_of_sources_are_kept_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "class Own:\n    def messages(self, row): return [{'role': 'user', 'content': row.id}]\n"
        "    def verify(self, row, text): return None\n"
    )
    config = mixed(tmp_path, words={"task": "own.py:Own"})
    assert config.own_files.keys() == {"data.sources.1.task"}
    task = make_task(*config.task_recipe)
    row = next(row for row in prepare(config).rows if row.source == "words")
    assert task.messages(row)[0]["content"] == "1", "a task knows its rows by their own ids"


def test_ids_do_not_depend_on_what_else_is_read(tmp_path: Path) -> None:
    """The fingerprints by which a resume knows rows: equal rows without ids in two sources are two rows."""
    same = [{"problem": "say 1", "answer": "1"}]
    config = mixed(tmp_path, sums={"rows": same, "task": "plain"}, words={"rows": same})
    parts = prepare(config).stretch.parts
    assert [len(part.training) for part in parts] == [1, 1]
    assert np.array_equal(parts[0].training.contents, parts[1].training.contents)


def refused(was: RunConfig, now: RunConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        check_same_run(was, now)
    return str(caught.value)


def test_a_resume_compares_the_keys_of_sources_by_their_names(tmp_path: Path) -> None:
    was = mixed(tmp_path)
    turned = was.model_copy(update={"data": was.data.model_copy(update={"sources": (was.data.sources or ())[::-1]})})
    check_same_run(was, turned)
    heavier = mixed(tmp_path, sums={"weight": 5})
    assert "data.sources.sums.weight: the run has 3.0, given is 5.0" in refused(was, heavier)

    def continued(config: RunConfig) -> RunConfig:
        return config.model_copy(update={"data": config.data.model_copy(update={"changed": "continue"})})

    for now in (heavier, mixed(tmp_path, words={"name": "new", "task": "arithmetic"}), mixed(tmp_path, words={"weight": 0})):
        check_same_run(was, continued(now))
    assert "data.sources.words.task: the run has 'plain', given is 'maths'" in refused(
        was, continued(mixed(tmp_path, words={"task": "maths"}))
    )
