"""Rows that say themselves what the teacher is shown: ``teacher_prompt`` and ``privileged_context``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.cli.prompts import shown
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.schema import Prompts, Source
from renio_pipeline.data.prints import content_of
from renio_pipeline.data.sources import HELD_OUT, TRAINING, load_rows
from renio_pipeline.preflight import prepare
from renio_pipeline.tasks import make_task
from renio_pipeline.tasks.phrasing import Phrasing
from renio_pipeline.types import Row
from tests.unit.conftest import make_config
from tests.unit.data.test_layouts import WRITE, lines

OWN = {"problem": "1+1", "answer": "2", "solution": "So 2.", "teacher_prompt": "Add {problem} the ones: 1+1"}


def read(path: Path, **fields: str) -> list[Row]:
    return list(load_rows(Source(path=str(path), fields=fields), optional=TRAINING))


def config_of(path: Path, *, privileged: bool = True, **changes: Any) -> RunConfig:
    shared = {
        "task": "plain", "data": {"path": str(path)}, "evaluate": {"problems": 0}, "max_response_tokens": 8,
        "method": {"type": "opd", "privileged": privileged},
    }  # fmt: skip
    return make_config(**(shared | changes))


@pytest.mark.parametrize("write", WRITE)
def test_a_rows_own_prompt_is_shown_as_it_stands_in_place_of_the_configured_one(write: Any, tmp_path: Path) -> None:
    (row,) = read(write(tmp_path, [OWN]))
    for prompts in (Prompts(), Prompts(teacher="P: {problem} S: {solution}"), Prompts(student="{problem}", instruction="Do.")):
        phrasing = Phrasing(make_task("maths"), prompts)
        assert phrasing.messages(row, "teacher") == [{"role": "user", "content": OWN["teacher_prompt"]}]
        assert OWN["teacher_prompt"] not in str([phrasing.messages(row, "student"), phrasing.messages(row, "evaluation")])


def test_rows_without_one_keep_the_configured_prompt(tmp_path: Path) -> None:
    other = {"problem": "2+2", "solution": "So 4.", "teacher_prompt": None}
    _, row = read(lines(tmp_path, [OWN, other]))
    found = Phrasing(make_task("plain"), Prompts(teacher="P: {problem} S: {solution}")).messages(row, "teacher")
    assert found == [{"role": "user", "content": "P: 2+2 S: So 4."}]


def test_a_text_keeps_what_was_said_before_and_a_list_of_messages_is_all_of_it(tmp_path: Path) -> None:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]
    told = [{"role": "system", "content": "You know: 2."}, {"role": "user", "content": "And 1+1?"}]
    text, messages = read(lines(tmp_path, [{"problem": asked, "teacher_prompt": p} for p in ("Hint.", told)]))
    phrasing = Phrasing(make_task("plain"))
    assert phrasing.messages(text, "teacher") == [asked[0], {"role": "user", "content": "Hint."}]
    assert phrasing.messages(messages, "teacher") == told
    assert phrasing.messages(messages, "student") == asked
    system = Phrasing(make_task("plain"), Prompts(system="Exact."))
    assert system.messages(messages, "teacher") == [{"role": "system", "content": "Exact."}, told[1]]


def test_privileged_context_is_what_the_teacher_is_shown_as_the_solution(tmp_path: Path) -> None:
    first, second = read(
        lines(
            tmp_path,
            [
                {"problem": "1+1", "solution": "2", "privileged_context": "Add the ones."},
                {"problem": "2+2", "solution": "4"},
            ],
        )
    )
    assert (first.solution, second.solution) == ("Add the ones.", "4")
    found = Phrasing(make_task("plain"), Prompts(teacher="{problem}: {solution}")).messages(first, "teacher")
    assert found[-1]["content"] == "1+1: Add the ones."


def test_other_names_for_them_are_mapped(tmp_path: Path) -> None:
    records = [{"problem": "1+1", "extra": {"hint": "Ones."}, "told": "Say 2."}]
    (row,) = read(lines(tmp_path, records), privileged_context="extra.hint", teacher_prompt="told")
    assert (row.solution, row.teacher_prompt) == ("Ones.", (("user", "Say 2."),))


def test_a_change_of_it_is_a_change_of_the_row_and_without_it_nothing_changed() -> None:
    rows = [Row(id="a", problem="p", teacher_prompt=said) for said in ((), (("user", "x"),), (("user", "y"),))]
    rows.append(Row(id="a", problem="p", context=(("user", "x"),)))
    assert len({content_of(row) for row in rows}) == 4


def test_renio_prompts_shows_it_to_the_teacher_alone(tmp_path: Path) -> None:
    text = "\n".join(shown(config_of(lines(tmp_path, [OWN | {"teacher_prompt": "9*9"}])), 1))
    student, _, teacher = text.partition("--- teacher, shown the solution")
    assert "9*9" in teacher
    assert "9*9" not in student


def test_teacher_ids_are_those_of_the_rows_own_prompt(tmp_path: Path) -> None:
    rows = [OWN | {"teacher_prompt": "9*9"}, {"problem": "1+2", "solution": "3"}]
    prepared = prepare(config_of(lines(tmp_path, rows), prompts={"teacher": "{problem} {solution}"}))
    first, second = (prepared.tokenizer.decode(ids, skip_special_tokens=True) for ids in prepared.teacher_ids)
    assert "9*9" in first
    assert "3" in second
    assert all("9*9" not in prepared.tokenizer.decode(ids) for ids in prepared.prompt_ids)


def test_a_missing_solution_names_the_row_unless_the_template_or_the_row_does_without(tmp_path: Path) -> None:
    bare, own = {"problem": "2+2"}, {"problem": "1+1", "teacher_prompt": "Say 2."}
    path = lines(tmp_path, [own, bare])
    with pytest.raises(ConfigError, match=r"rows.jsonl, line 2 has no solution.*teacher_prompt"):
        prepare(config_of(path))
    with pytest.raises(ConfigError, match=r"line 2 has no solution"):
        prepare(config_of(path, prompts={"teacher": "{problem} {solution}"}))
    assert len(prepare(config_of(path, prompts={"teacher": "Think: {problem}"})).rows) == 2
    analysed = {"type": "opd", "privileged": True, "reason_first": {"max_tokens": 8}}
    with pytest.raises(ConfigError, match=r"line 2 has no solution"):  # which is analysed, whatever the prompt has of it
        prepare(config_of(path, method=analysed, prompts={"teacher": "{problem} {reasoning}"}))
    for method in (analysed, {"type": "opd", "privileged": True}):
        short = {"reasoning": "{problem} {solution}"}
        assert len(prepare(config_of(lines(tmp_path, [own]), method=method, prompts=short)).rows) == 1


def test_one_that_no_teacher_would_see_is_said(tmp_path: Path) -> None:
    prepared = prepare(config_of(lines(tmp_path, [OWN]), privileged=False))
    assert any("rows have a teacher_prompt, which is ignored" in note for note in prepared.notes)
    assert prepared.teacher_ids is prepared.prompt_ids


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (7, "field 'teacher_prompt' must be text or a list of messages, got int"),
        ("  ", "must be text or a list of messages"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "ends with a message of assistant"),
        ("half \ud800", "field 'teacher_prompt' holds half a surrogate pair"),
    ],
)
def test_one_that_asks_nothing_is_refused_with_its_row(given: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"problem": "1+1", "teacher_prompt": given}) + "\n")
    with pytest.raises(ConfigError) as error:
        read(path)
    assert "line 1" in str(error.value)
    assert said in str(error.value)


def test_held_out_rows_are_read_without_it(tmp_path: Path) -> None:
    path = lines(tmp_path, [{"problem": "1+1", "answer": "2", "teacher_prompt": 7}])
    assert load_rows(Source(path=str(path)), optional=HELD_OUT)[0].teacher_prompt == ()
