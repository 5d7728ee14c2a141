"""Chat templates that read the time or draw at random: the same prompt on every day, through transformers' own rendering."""

from __future__ import annotations

import random
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from renio_pipeline.data.prompts import Encoder
from renio_pipeline.data.template_clock import TemplateClock
from renio_pipeline.tasks import make_task
from renio_pipeline.tasks.phrasing import Phrasing
from renio_pipeline.types import Row
from tests.unit.conftest import DEMO

LLAMA = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y %H') %}"
    "{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}{{ date_string }}:"
    "{% for m in messages %}{{ m.content }}{% endfor %}"
)
IN_A_MACRO = (
    "{% macro day() %}{{ strftime_now('%j %H') }}{% endmacro %}{{ day() }}:{% for m in messages %}{{ m.content }}{% endfor %}"
)
DRAWN = "{{ range(100000) | random }} {{ lipsum(1, false, 1, 9)[:0] }}:{% for m in messages %}{{ m.content }}{% endfor %}"
NO_CLOCK = "{% for m in messages %}{{ m.content }}{% endfor %}"
ROWS = [Row(id=str(i), problem=f"{i}+1") for i in range(20)]


class Late(datetime):
    """A day on which every template would say something else."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime(2031, 12, 3, 4, 5, 6, 7)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Late)
    monkeypatch.setattr("renio_pipeline.data.template_clock.datetime", Late)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(DEMO / "student")


def texts(tokenizer: Any, template: str, clock: TemplateClock | None = None) -> list[str]:
    tokenizer.chat_template = template
    encoder = Encoder(tokenizer, Phrasing(make_task("plain")), clock=clock)
    return [tokenizer.decode(ids) for ids in encoder.encode(ROWS)]


@pytest.mark.parametrize(("template", "form"), [(LLAMA, "%d %b %Y %H"), (IN_A_MACRO, "%j %H")])
def test_a_template_is_told_the_time_of_the_runs_start_whatever_the_time_is(
    tokenizer: Any, template: str, form: str, late: None
) -> None:
    clock = TemplateClock("2026-01-02T10:30:00")
    assert texts(tokenizer, template, clock)[0] == f"{datetime(2026, 1, 2, 10, 30).strftime(form)}:0+1"
    assert texts(tokenizer, template)[0] == f"{Late.now().strftime(form)}:0+1", "a run that starts"


def test_a_clock_is_recorded_to_the_second_and_read_again(late: None) -> None:
    clock = TemplateClock()
    assert clock.at == "2031-12-03T04:05:06"
    assert TemplateClock(clock.at).at == clock.at
    with pytest.raises(ValueError, match="Invalid isoformat"):
        TemplateClock("yesterday")


def test_the_clock_stands_while_prompts_are_made(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that is made on the second day is that of the first."""
    tokenizer.chat_template = LLAMA
    encoder = Encoder(tokenizer, Phrasing(make_task("plain")))
    before = encoder.encode(ROWS)
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Late)
    assert all(map(np.array_equal, encoder.encode(ROWS), before))


def test_what_a_template_draws_it_draws_again_and_nobody_else_is_disturbed(tokenizer: Any) -> None:
    random.seed(3)
    state = random.getstate()
    first = texts(tokenizer, DRAWN)
    assert random.getstate() == state
    random.seed(4)
    assert texts(tokenizer, DRAWN) == first
    assert len({text.partition(":")[0] for text in first}) > 10, "rows draw apart"


def test_only_a_template_that_asks_is_told_the_time_and_only_then_it_is_said(tokenizer: Any) -> None:
    clock = TemplateClock("2026-01-02T10:30:00")
    assert texts(tokenizer, NO_CLOCK, clock)[0] == "0+1"
    assert (clock.options(NO_CLOCK), clock.note(NO_CLOCK, "m")) == ({}, None)
    assert clock.note(LLAMA, "m") == (
        "the chat template of 'm' reads the time: for all prompts it is 2026-01-02 10:30:00, also after a resume"
    )
