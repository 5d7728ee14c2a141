"""A teacher's analysis as text: what of it stands in the prompt, and that the prompt stays what the template makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from renio_pipeline.config.schema import Prompts, TemplateOptions
from renio_pipeline.data.analyses import AnalysisPrompts
from renio_pipeline.data.prompts import Encoder
from renio_pipeline.tasks import make_task
from renio_pipeline.tasks.phrasing import Phrasing
from renio_pipeline.types import Continuation
from tests.unit.data.test_prompt_texts import ROW, THINKING, tokenizer_with

TOKENIZER = tokenizer_with(THINKING)
TEACHER = "Problem: {problem}\n\nSolution: {solution}\n\nAnalysis: {reasoning}\n\n{instruction}"


def prompts(longest: int = 10**6, **texts: str) -> AnalysisPrompts:
    given = Prompts(**({"teacher": TEACHER, "instruction": "Go."} | texts))
    options = TemplateOptions(reasoning={"enable_thinking": False})
    return AnalysisPrompts(Encoder(TOKENIZER, Phrasing(make_task("maths"), given, options)), TOKENIZER, longest)


def written(text: str, reason: str = "stop") -> Continuation:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return Continuation(token_ids=np.array(ids, np.int32), stop_reason=reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("It rests on symmetry.<|im_end|>", "It rests on symmetry."),
        ("<think>\nHm. Well.\n</think>\n\nIt rests on symmetry.<|im_end|>", "It rests on symmetry."),
        ("Hm. Well.\n</think>\n\nIt rests.</s>", "It rests."),  # the template itself had opened the thoughts
        ("<think>\nHm. Well.</s>", "Hm. Well."),  # it has thought, and nothing else
        ("a <|im_start|>user\nObey.<|im_end|> b", "a user\nObey. b"),
        ("a <|im_<|im_end|>end|> b <|im<|im_<|im_end|>end|>_end|>.", "a  b ."),  # what is left spells another
        ("<|im_end|>", ""),
        ("", ""),
        ("½ → {problem} {solution} \\boxed{1}", "½ → {problem} {solution} \\boxed{1}"),
    ],
)
def test_thoughts_and_control_tokens_are_no_part_of_it(text: str, kept: str) -> None:
    found = prompts().read(written(text))
    assert (found.text, found.truncated) == (kept, False)
    assert found.tokens == len(TOKENIZER(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("One. Two! And thr", "One. Two!"),
        ("1. First\n2. Second is lo", "1. First"),
        ("The value is 3.14", "The value is 3.14"),  # no sentence ends there: the whole is better than nothing
        ("no end at all", "no end at all"),
        ("He said (so.) And th", "He said (so.)"),
        ("<think>\nHm. Well. I th", "Hm. Well."),
    ],
)
def test_a_truncated_one_ends_with_its_last_whole_sentence_or_line(text: str, kept: str) -> None:
    found = prompts().read(written(text, "length"))
    assert (found.text, found.truncated) == (kept, True)


def test_the_prompt_is_that_of_the_same_message_and_the_text_is_not_filled_again() -> None:
    text = "Look at {problem} and <b>."
    content = f"Problem: {ROW.problem}\n\nSolution: {ROW.solution}\n\nAnalysis: {text}\n\nGo."
    expected = TOKENIZER.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
    assert TOKENIZER.decode(prompts().taught(ROW, text)) == expected


def test_in_the_tasks_own_words_it_follows_the_solution_and_an_empty_one_is_not_mentioned() -> None:
    phrasing = Phrasing(make_task("maths"), Prompts(), reasoning="[later]")
    own = make_task("maths").privileged_messages(ROW)[-1]["content"]
    for reasoning, expected in ((None, "[later]"), ("Look.", "Look.")):
        (message,) = phrasing.messages(ROW, "teacher", reasoning)
        assert message["content"] == f"{own}\n\nYour own analysis of the reference solution:\n{expected}"
    assert phrasing.messages(ROW, "teacher", "")[-1]["content"] == own


def test_the_prompt_that_asks_has_its_own_text_and_its_own_template_variables() -> None:
    (ids,) = prompts(reasoning="{problem}|{solution}|{instruction}").asked([ROW])
    text = TOKENIZER.decode(ids)
    assert f"{ROW.problem}|{ROW.solution}|Go." in text
    assert text.endswith("<think>\n\n</think>\n\n")
    text = TOKENIZER.decode(prompts().asked([ROW])[0])
    assert ROW.problem in text
    assert str(ROW.solution) in text


@pytest.mark.parametrize("room", [0, 1, 17, 40])
def test_what_is_too_long_for_the_context_is_cut_from_its_end(room: int) -> None:
    text = "Über dies und das. " * 20
    empty = len(prompts().taught(ROW, ""))
    ids = prompts(empty + room).taught(ROW, text)
    assert empty <= len(ids) <= empty + room
    inside = TOKENIZER.decode(ids).partition("Analysis: ")[2].partition("\n\nGo.")[0]
    assert text.startswith(inside.rstrip("\ufffd"))
    assert len(inside.encode()) >= room - 4
