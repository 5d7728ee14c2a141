"""Given texts and template variables: the ids are those of the same messages as transformers renders them."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from docs.generate import prompts as generated
from renio_pipeline.cli import main
from renio_pipeline.cli.prompts import shown
from renio_pipeline.config import ConfigError, RunConfig, load
from renio_pipeline.config.schema import Prompts, TemplateOptions
from renio_pipeline.data.chat_templates import check_variables
from renio_pipeline.data.prompts import Encoder
from renio_pipeline.data.template_clock import TemplateClock
from renio_pipeline.models import info
from renio_pipeline.models.files import tokenizer_of
from renio_pipeline.models.info import resolve
from renio_pipeline.tasks import make_task
from renio_pipeline.tasks.phrasing import Phrasing
from renio_pipeline.types import Row

ROOT = Path(__file__).parents[3]
# In the styles of published templates, written for these tests.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = CHATML.replace(
    "assistant\n{% endif %}",
    "assistant\n{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
)
DATED = (
    "{{ bos_token }}{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday: {{ date_string }}\n\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set messages = messages[1:] %}{% endif %}<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
)
STYLES = {"ChatML": CHATML, "thinking": THINKING, "a date": DATED, "no system role": NO_SYSTEM, "brackets": BRACKETS}
SPECIAL = [
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
]
ROW = Row(id="a", problem="Let $x = {1}$. What is \\frac{x}{2}? ½ {problem}", answer="1/2", solution="It is \\boxed{\\frac12}.")
TEXTS = Prompts(
    student="Problem: {problem}\n\n{instruction}",
    teacher="Problem: {problem}\n\nSolution: {solution}\n\n{instruction}",
    instruction="Put it in \\boxed{}.",
)
ASKED = f"Problem: {ROW.problem}\n\nPut it in \\boxed{{}}."
TAUGHT = f"Problem: {ROW.problem}\n\nSolution: {ROW.solution}\n\nPut it in \\boxed{{}}."
AT = "2024-02-29T12:00:00"


def tokenizer_with(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes, with the special tokens of all the styles."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    special = {"bos_token": "<s>", "eos_token": "</s>", "extra_special_tokens": SPECIAL}
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=template, **special)


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("style", STYLES)
def test_the_ids_are_those_of_the_messages_rendered_and_stripped(style: str, system: str | None) -> None:
    tokenizer = tokenizer_with(STYLES[style])
    variables = {"enable_thinking": False} if style == "thinking" else {}
    options = TemplateOptions(student=variables, evaluation={})
    phrasing = Phrasing(make_task("maths"), TEXTS.model_copy(update={"system": system}), options)
    encoder = Encoder(tokenizer, phrasing, plain=["student"], clock=TemplateClock(AT))
    before = [{"role": "system", "content": system}] if system else []
    if system and style == "no system role":
        with pytest.raises(ConfigError, match="row 'a', which has messages of system, user: System role not supported"):
            encoder.encode([ROW])
        return
    for audience, content in (("student", ASKED), ("teacher", TAUGHT), ("evaluation", ASKED)):
        text = tokenizer.apply_chat_template(
            [*before, {"role": "user", "content": content}],
            tokenize=False,
            add_generation_prompt=True,
            strftime_now=datetime.fromisoformat(AT).strftime,
            **(variables if audience == "student" else {}),
        )
        if audience == "student":
            for token in tokenizer.all_special_tokens:
                text = text.replace(token, "")
        (ids,) = encoder.encode([ROW], audience)  # type: ignore[arg-type]
        assert ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"], audience
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_a_variable_that_the_template_does_not_read_is_named() -> None:
    tokenizer = tokenizer_with(THINKING)
    check_variables(tokenizer, TemplateOptions(student={"enable_thinking": True}))
    with pytest.raises(
        ConfigError, match=r"template\.teacher\.enable_thinkin: .* 'enable_thinkin'; did you mean enable_thinking"
    ):
        check_variables(tokenizer, TemplateOptions(teacher={"enable_thinkin": True}))
    with pytest.raises(ConfigError, match=r"template\.student\.messages: the pipeline sets messages itself"):
        check_variables(tokenizer, TemplateOptions(student={"messages": []}))
    with pytest.raises(ConfigError, match=r"template\.student\.reasoning_effort: the chat template does not read"):
        check_variables(tokenizer_with(CHATML), TemplateOptions(student={"reasoning_effort": "low"}))
    check_variables(tokenizer_with(CHATML), TemplateOptions(student={"enable_thinking": False}))  # it does not think anyway


def rendered(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(info, "read_tokenizer", lambda model, key: tokenizer_with(THINKING))
    found = "\n".join(shown(config, 1)).split("--- ")[1:]
    return {part.partition(",")[0].partition(":")[0]: part.partition("\n")[2] for part in found}


@pytest.mark.parametrize("name", ["qwen3-1.7b-opd", "qwen3-1.7b-opsd", "qwen3-4b-opsd", "qwen3-8b-opsd"])
def test_the_papers_presets_ask_as_the_reference_does(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"problem": "1+1?", "solution": "It is 2.", "Answer": "2"}\n', encoding="utf-8")
    texts = rendered(load(ROOT / f"configs/paper/{name}.yaml", [f"data.path={data}"]), monkeypatch)
    student, teacher, evaluation = (texts[who] for who in ("student", "teacher", "evaluation"))
    instruction = "Reason step by step, and put the final answer in \\boxed{}."
    # The student: one user message, thinking off, and no special tokens.
    assert not any(token in student for token in SPECIAL)
    assert student.index("Problem: 1+1?\n\n") < student.index(instruction) < student.index("<think>\n\n</think>")
    # The teacher: the solution between marks, the transition, the instruction; thinking on, with all special tokens.
    order = [
        "<|im_start|>user\nProblem: 1+1?\n\n",
        "BEGIN",
        "It is 2.",
        "END",
        "Do not copy",
        instruction,
        "<|im_start|>assistant\n",
    ]
    places = [teacher.index(part) for part in order]
    assert places == sorted(places)
    assert "<think>" not in teacher
    # Evaluation: the problem and the instruction alone in the whole template, thinking on.
    assert evaluation.startswith(f"<|im_start|>user\n1+1?\n\n{instruction}<|im_end|>\n<|im_start|>assistant\n")
    assert "<think>" not in evaluation


@pytest.mark.parametrize("name", generated.PRESETS)
def test_the_papers_presets_ask_for_programs_in_the_same_structure(name: str) -> None:
    text = generated.prompts_of(name, code=True)
    student, teacher, evaluation = text.split("\n--- ")[1:]
    problem, program = generated.CODE["problem"], generated.CODE["ground_truth_solution"]
    first, last = "Think the problem through first.", "one ```python code block at the end. It defines the function `total`."
    assert not any(token in student for token in SPECIAL)
    assert student.index(f"Problem: {problem}\n\n{first}") < student.index(last) < student.index("<think>\n\n</think>")
    order = [f"<|im_start|>user\nProblem: {problem}\n\n", "BEGIN", program, "END", "Do not copy", first, f"{last}<|im_end|>\n"]
    places = [teacher.index(part) for part in order]
    assert places == sorted(places)
    assert teacher.endswith("<|im_start|>assistant\n")
    assert evaluation.startswith(f"evaluation\n<|im_start|>user\n{problem}\n\n{first}")
    assert "<think>" not in teacher + evaluation


@pytest.mark.slow
def test_the_documents_show_what_the_command_prints_and_one_text_stands_for_all_four_presets() -> None:
    shown_there = generated.section()
    assert generated.WRITTEN.read_text(encoding="utf-8") == shown_there + "\n", "python docs/generate/prompts.py writes it anew"
    for code in (False, True):
        (text,) = {generated.prompts_of(name, code=code) for name in generated.PRESETS}
        assert f"~~~~text\n{text}\n~~~~" in shown_there
    analysed = shown_there.rpartition("~~~~text")[2]
    asked, place = analysed.index("--- teacher, asked for an analysis"), analysed.index("Your analysis of it: [the teacher's")
    assert asked < analysed.index("Analyse this solution") < place < analysed.index("--- evaluation")
    page = (ROOT / "docs/algorithms.md").read_text(encoding="utf-8")
    assert "<!-- generated: prompts -->" in page


@pytest.mark.parametrize(
    ("student", "told"),
    [
        ("nobody/nothing", "'nobody/nothing' cannot be read as a model (there is no such folder"),
        ("/no/such/folder", "model folder '/no/such/folder' does not exist"),
    ],
)
def test_a_tokenizer_that_is_not_at_hand_is_the_users_error(
    student: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a machine that does not reach the hub: one line and exit code 2, after the first request instead of the last."""
    asked: list[str] = []

    def no_hub(name: str, file: str, **options: object) -> str:
        asked.append(file)
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", no_hub)
    monkeypatch.setattr("renio_pipeline.models.files.reach", lambda name, file: None)
    assert main(["prompts", "--config", str(ROOT / "configs/demo.yaml"), f"student={student}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: student: {told}")
    assert err.count("\n") == 1
    assert len(asked) == (student == "nobody/nothing")


def test_the_command_shows_special_tokens_counts_and_ids() -> None:
    config = load(ROOT / "configs/demo.yaml", ["prompts.instruction=Go."])
    lines = list(shown(config, 2, ids=True))
    assert sum(line.startswith("row ") for line in lines) == 2
    head = next(i for i, line in enumerate(lines) if line.startswith("--- student"))
    ids = json.loads(lines[head + 2].removeprefix("--- ids: "))
    assert lines[head] == f"--- student, in training: {len(ids)} tokens"
    assert tokenizer_of(resolve("embedded:student")).decode(ids) == lines[head + 1]
    assert "Go." in lines[head + 1]
    assert not any(line.startswith("--- teacher") for line in lines)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "prompts.student='Solve {problm}'",
            "prompts.student: {problm} is no placeholder here; allowed: {problem}, {instruction}",
        ),
        ("prompts.student='Solve {problem} {solution}'", "{solution} is no placeholder here"),
        ("prompts.student='Solve it'", "the text has no {problem}"),
        ("prompts.teacher='@no/such/file'", "no/such/file cannot be read"),
        ("template.students.x=1", "template.students: unknown key; did you mean student?"),
    ],
)
def test_texts_that_cannot_be_filled_are_refused(override: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(ROOT / "configs/demo.yaml", [override])
    assert told in str(error.value)


def test_a_text_may_stand_in_a_file_and_the_configuration_has_it(tmp_path: Path) -> None:
    path = tmp_path / "student.txt"
    path.write_text("@{problem}\n{instruction}\n", encoding="utf-8")
    config = load(ROOT / "configs/demo.yaml", [f"prompts.student='@{path}'"])
    again = RunConfig.model_validate(config.model_dump())
    assert again.prompts == config.prompts
    (message,) = Phrasing(make_task("plain"), config.prompts).messages(ROW, "student")
    assert message == {"role": "user", "content": f"@{ROW.problem}"}


def test_an_instruction_alone_follows_the_problem_and_the_solution_follows_that() -> None:
    phrasing = Phrasing(make_task("maths"), Prompts(instruction="Say it."))
    assert phrasing.messages(ROW, "student") == [{"role": "user", "content": f"{ROW.problem}\n\nSay it."}]
    (taught,) = phrasing.messages(ROW, "teacher")
    assert taught["content"].startswith(f"{ROW.problem}\n\nSay it.\n\nA reference solution:\n{ROW.solution}\n\n")


@pytest.mark.parametrize("task", ["plain", "maths", "code", "arithmetic"])
def test_without_texts_a_task_asks_in_its_own_words(task: str) -> None:
    made = make_task(task)
    phrasing = Phrasing(made)
    row = ROW if task != "arithmetic" else made.rows("train", 1)[0]
    assert phrasing.messages(row, "student") == phrasing.messages(row, "evaluation") == made.messages(row)
    assert phrasing.messages(row, "teacher") == made.privileged_messages(row)
