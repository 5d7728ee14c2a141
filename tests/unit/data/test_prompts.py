"""Prompts: what the models are shown, and the order in which it comes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from renio_pipeline.data.prompts import Cursor, Encoder, held_out_prompts
from renio_pipeline.tasks import make_task
from renio_pipeline.tasks.phrasing import Phrasing
from renio_pipeline.types import Prompt, Row
from tests.unit.conftest import DEMO, make_config

TASK = make_task("plain")
for_all = settings(deadline=None, derandomize=True, max_examples=60)
TEMPLATE = (
    "{% for m in messages %}<eos>{{ m.role }}\n{{ m.content }}{% endfor %}{% if add_generation_prompt %}<pad>!{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The student's, with a template that has special tokens of both kinds in it."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "student")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def rows_of(count: int) -> list[Row]:
    return [Row(id=f"row-{i}", problem=str(i)) for i in range(count)]


def make_cursor(rows: int, *, seed: int = 0, repeat: int = 1, position: int = 0) -> Cursor:
    config = make_config(seed=seed, samples_per_prompt=repeat, batch_size=repeat)
    ids = [np.array([i, i + 1], np.int32) for i in range(rows)]
    return Cursor(ids, rows_of(rows), config, position)


def seen(prompts: list[Prompt]) -> list[tuple[int, str]]:
    return [(p.sample_id, p.row.id) for p in prompts]


@for_all
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**31 - 1), st.integers(1, 4))
def test_every_epoch_draws_every_row_as_often_as_samples_per_prompt(rows: int, repeat: int, seed: int, epochs: int) -> None:
    cursor = make_cursor(rows, seed=seed, repeat=repeat)
    for _ in range(epochs):
        drawn = Counter(p.row.id for p in cursor.take(rows * repeat))
        assert drawn == {f"row-{i}": repeat for i in range(rows)}


@for_all
@given(st.integers(1, 9), st.integers(1, 3), st.integers(0, 99), st.lists(st.integers(0, 10), max_size=6))
def test_a_cursor_made_anew_at_any_position_goes_on_as_the_first_would_have(
    rows: int, repeat: int, seed: int, counts: list[int]
) -> None:
    straight = make_cursor(rows, seed=seed, repeat=repeat)
    expected = seen(straight.take(sum(counts) + 5))
    position, drawn = 0, []
    for count in [*counts, 5]:
        resumed = make_cursor(rows, seed=seed, repeat=repeat, position=position)
        drawn += seen(resumed.take(count))
        position = resumed.position
    assert drawn == expected
    assert position == straight.position


def test_samples_of_a_prompt_come_together_under_ids_of_their_own() -> None:
    prompts = make_cursor(5, repeat=3).take(30)
    assert [p.sample_id for p in prompts] == list(range(30))
    for start in range(0, 30, 3):
        assert len({p.row.id for p in prompts[start : start + 3]}) == 1


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    def order(seed: int, epoch: int) -> list[str]:
        return [p.row.id for p in make_cursor(50, seed=seed, position=50 * epoch).take(50)]

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    orders.append([row.id for row in rows_of(50)])
    assert len({tuple(o) for o in orders}) == 5
    assert order(0, 1) == order(0, 1)


def test_a_prompt_has_the_ids_of_its_own_row() -> None:
    for prompt in make_cursor(7).take(20):
        index = int(prompt.row.id.removeprefix("row-"))
        assert prompt.student_ids.tolist() == prompt.teacher_ids.tolist() == [index, index + 1]


def test_held_out_prompts_have_negative_ids_and_keep_the_order() -> None:
    ids = [np.array([i], np.int32) for i in range(4)]
    prompts = held_out_prompts(ids, rows_of(4))
    assert seen(prompts) == [(-1, "row-0"), (-2, "row-1"), (-3, "row-2"), (-4, "row-3")]
    assert [p.student_ids.tolist() for p in prompts] == [[0], [1], [2], [3]]


def test_chat_encodes_the_rendered_template_and_nothing_more(tokenizer: Any) -> None:
    (ids,) = Encoder(tokenizer, Phrasing(TASK)).encode([Row(id="a", problem="3+4")])
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == "<eos>user\n3+4<pad>!"
    assert ids[0] == tokenizer.eos_token_id
    assert (ids == tokenizer.pad_token_id).sum() == 1


def test_plain_leaves_the_special_tokens_out_and_keeps_the_text(tokenizer: Any) -> None:
    (ids,) = Encoder(tokenizer, Phrasing(TASK), plain=["student"]).encode([Row(id="a", problem="3+4")])
    assert tokenizer.decode(ids) == "user\n3+4!"
    assert not set(ids.tolist()) & set(tokenizer.all_special_ids)


def test_the_encoder_adds_no_special_tokens_that_the_template_has_not() -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "student")
    begin = TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", tokenizer.eos_token_id)])
    tokenizer.backend_tokenizer.post_processor = begin
    assert tokenizer.decode(tokenizer("3:")["input_ids"]) == "<eos>3:"
    (ids,) = Encoder(tokenizer, Phrasing(TASK)).encode([Row(id="a", problem="3")])
    assert tokenizer.decode(ids) == "3:"


def test_rows_are_encoded_each_by_itself_without_padding(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, Phrasing(TASK))
    rows = [Row(id="a", problem="1"), Row(id="b", problem="1" * 300)]
    together = [ids.tolist() for ids in encoder.encode(rows)]
    assert together == [encoder.encode([row])[0].tolist() for row in rows]
    assert len(together[1]) == len(together[0]) + 299
    assert encoder.encode([]) == []
