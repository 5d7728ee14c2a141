"""Chat templates: a broken one, one that refuses, several of them, and one whose answers never end."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from renio_pipeline import cli
from renio_pipeline.config import ConfigError
from renio_pipeline.data.chat_templates import end_warning
from renio_pipeline.data.prompts import Encoder
from renio_pipeline.evaluation.asking import alone, ask
from renio_pipeline.evaluation.models import Located
from renio_pipeline.evaluation.sets import data_sets
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.tasks import make_task
from renio_pipeline.tasks.phrasing import Phrasing
from renio_pipeline.types import Row
from tests.unit.conftest import DEMO, make_config

Student = Callable[[str], str]
PLAIN = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<eos>{% endif %}{% endfor %}"


@pytest.fixture
def student(tmp_path: Path) -> Student:
    """A copy of the student with another template."""

    def make(template: str) -> str:
        folder = Path(shutil.copytree(DEMO / "student", tmp_path / "model", dirs_exist_ok=True))
        (folder / "chat_template.jinja").write_text(template)
        return str(folder)

    return make


def rows(folder: Path, *problems: str) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": f"row-{i}", "problem": p}) + "\n" for i, p in enumerate(problems, 1)))
    return str(path)


def prepared(model: str, data: dict[str, Any], **changes: Any) -> Prepared:
    return prepare(
        make_config(student=model, task="plain", data=data, max_response_tokens=8, evaluate={"problems": 0}, **changes)
    )


def refusal(model: str, data: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        prepared(model, data, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_broken_template_is_refused_with_its_line_and_its_own_words(student: Student, tmp_path: Path) -> None:
    model = student("{% for m in messages %}\n{{ m.content }\n{% endfor %}")
    text = refusal(model, {"path": rows(tmp_path, "1+1")})
    assert text.startswith(f"student: the chat template of {model!r} is broken at its line 2: unexpected '}}'")


def test_a_template_that_refuses_a_system_role_says_so_with_the_row_and_the_roles(student: Student, tmp_path: Path) -> None:
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + PLAIN
    task = tmp_path / "own.py"
    task.write_text(
        "from renio_pipeline.tasks.plain import Plain\n"
        "class Own(Plain):\n"
        "    def messages(self, row):\n"
        "        return [{'role': 'system', 'content': 'Be brief.'}, *super().messages(row)]\n"
    )
    config = make_config(
        student=student(refuses),
        task=f"{task}:Own",
        data={"path": rows(tmp_path, "1+1")},
        max_response_tokens=8,
        evaluate={"problems": 0},
    )
    with pytest.raises(ConfigError) as caught:
        prepare(config)
    assert str(caught.value) == (
        f"student: the chat template of {config.student!r} cannot make the prompt of row 'row-1' (line 1 of its file), which "
        "has messages of system, user: System role not supported; mend the template, or have the task ask in other messages"
    )


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("{{ raise_exception('No 7,\nplease.') }}", "No 7, please."),
        ("{{ m.content.no.such }}", "'str object' has no attribute 'no'"),
        ("{{ m.content + 1 }}", "TypeError: can only concatenate str"),
        ("{{ 1 // 0 }}", "ZeroDivisionError: integer division or modulo by zero"),
        ("{{ m.content.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
    ],
)
def test_an_error_of_any_kind_is_told_in_the_templates_own_words(
    student: Student, tmp_path: Path, expression: str, words: str
) -> None:
    template = "{% for m in messages %}{% if m.content == '7' %}" + expression + "{% endif %}{{ m.content }}<eos>{% endfor %}"
    text = refusal(student(template), {"path": rows(tmp_path, "6", "7")})
    assert "cannot make the prompt of row 'row-2' (line 2 of its file), which has messages of user: " in text
    assert words in text


@pytest.mark.slow
def test_an_error_at_row_20000_is_found_by_the_check(student: Student, tmp_path: Path) -> None:
    model = student("{% if messages[0].content == '7' %}{{ raise_exception('no 7') }}{% endif %}" + PLAIN)
    text = refusal(model, {"path": rows(tmp_path, *["6"] * 19_999, "7", *["6"] * 5)})
    assert "cannot make the prompt of row 'row-20000' (line 20000 of its file), which has messages of user: no 7; " in text


def test_the_command_ends_with_2_and_one_line(
    student: Student, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    config = tmp_path / "config.yaml"
    keys = {"steps": 1, "student": student("{{ raise_exception('no') }}"), "teacher": {"model": "embedded:teacher"}}
    more = {"task": "plain", "data": {"path": rows(tmp_path, "1")}, "max_response_tokens": 8, "evaluate": {"problems": 0}}
    config.write_text(json.dumps(keys | more))
    assert cli.main(["check", "--offline", "--config", str(config)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: student: the chat template of ")


def test_an_evaluation_names_its_own_key(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"problem": "1", "answer": "1"}\n')
    config = alone(make_config(task="plain", max_response_tokens=8))
    sets = data_sets(config, [], [f"mine={path}"], samples=1, limit=None)
    model = student("{{ raise_exception('no') }}")
    with pytest.raises(ConfigError, match=r"^--model: the chat template of .* cannot make the prompt of row '1'"):
        ask(config, "m", Located(model), sets)
    with pytest.raises(ConfigError, match="makes an empty prompt of row '1' of mine"):
        ask(config, "m", Located(student("{% if false %}1{% endif %}")), sets)
    found = ask(config, "m", Located(student("{{ messages[0].content }}{% if messages[1] %}a{% endif %}")), sets)
    assert found.notes == ()


def test_a_template_that_makes_nothing_of_a_row_is_refused(student: Student, tmp_path: Path) -> None:
    text = refusal(student("{% if messages[0].content != '2' %}1{% endif %}"), {"path": rows(tmp_path, "1", "2")})
    assert "its chat template makes an empty prompt of" in text
    assert "line 2" in text


def with_templates(folder: str, **named: str) -> str:
    """Several templates by name, as transformers saves them."""
    place = Path(folder)
    (place / "chat_template.jinja").unlink()
    (place / "additional_chat_templates").mkdir(exist_ok=True)
    for name, template in named.items():
        file = "chat_template.jinja" if name == "default" else f"additional_chat_templates/{name}.jinja"
        (place / file).write_text(template)
    return folder


def test_of_several_templates_the_key_chooses_one_and_must_where_none_is_the_default(student: Student, tmp_path: Path) -> None:
    data = {"path": rows(tmp_path, "3+4")}
    model = with_templates(student(PLAIN), rag="9" + PLAIN, tool_use="8" + PLAIN)
    assert refusal(model, data) == (
        f"data.chat_template: the tokenizer of {model!r} has several chat templates, and none is the default; choose one of "
        "rag, tool_use"
    )
    found = prepared(model, data | {"chat_template": "rag"})
    assert found.tokenizer.decode(found.prompt_ids[0]) == "93+4"
    assert "has no chat template 'x'; it has rag, tool_use" in refusal(model, data | {"chat_template": "x"})


def test_a_default_template_needs_no_choice_and_may_be_passed_over(student: Student, tmp_path: Path) -> None:
    data = {"path": rows(tmp_path, "3+4")}
    model = with_templates(student(PLAIN), default=PLAIN, short="9" + PLAIN)
    assert (
        prepared(model, data).prompt_ids[0].tolist()
        != prepared(model, data | {"chat_template": "short"}).prompt_ids[0].tolist()
    )
    alone_ = str(DEMO / "student")
    assert "has a single chat template, without a name; leave the key out" in refusal(alone_, data | {"chat_template": "short"})


ENDS = {
    "the end token": (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<eos>{% endif %}{% endfor %}",
        False,
    ),
    "the end token, then a line": ("{% for m in messages %}{{ m.content }}<eos>\n{% endfor %}", False),
    "between turns only": ("{% for m in messages %}{{ m.content }}{% if not loop.last %}<eos>{% endif %}{% endfor %}", False),
    "another token": ("{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<pad>{% endif %}{% endfor %}", True),
    "nothing": ("{% for m in messages %}{{ m.content }}{% endfor %}", True),
    "it begins every message": ("{% for m in messages %}<eos>{{ m.content }}{% endfor %}", False),
    "it takes no answers": ("{% if messages[1] %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}", False),
}


@pytest.mark.parametrize("kind", ENDS)
def test_a_template_that_never_writes_the_end_token_is_warned_of(kind: str, student: Student, tmp_path: Path) -> None:
    template, warned = ENDS[kind]
    model = student(template)
    notes = prepared(model, {"path": rows(tmp_path, "1+1")}).notes
    assert bool(notes) == warned
    if kind == "another token":
        assert notes == (
            f"warning: the chat template of {model!r} ends an answer with '<pad>', and the tokens that end its responses "
            "are '<eos>': responses may all be truncated at max_response_tokens; correct eos_token_id in its "
            "generation_config.json",
        )


def test_an_end_token_of_the_generation_settings_counts(student: Student, tmp_path: Path) -> None:
    model = student(ENDS["another token"][0])
    file = Path(model, "generation_config.json")
    for given in (0, [1, 0]):  # <pad> is token 0
        file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": given}))
        assert prepared(model, {"path": rows(tmp_path, "1+1")}).notes == ()


def test_a_model_without_any_end_token_is_warned_of() -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "student")
    assert "the tokens that end its responses are none" in str(end_warning(tokenizer, (), "x"))


def test_a_prompt_longer_than_the_tokenizers_own_limit_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "student")
    assert tokenizer.model_max_length == 128
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        (ids,) = Encoder(tokenizer, Phrasing(make_task("plain"))).encode([Row(id="a", problem="1" * 300)])
        assert len(ids) > 128
        assert caplog.text == ""
        tokenizer("1" * 300)
        assert "Token indices sequence length is longer" in caplog.text, "the warning has another name: this test shows nothing"
    finally:
        logger.removeHandler(caplog.handler)
