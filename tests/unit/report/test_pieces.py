"""What each token wrote: pieces join to the text of a response, whatever it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renio_pipeline.report.pieces import Pieces, load_tokenizer
from tests.unit.conftest import make_config


def byte_level() -> Any:
    """A tokenizer whose tokens are single bytes, and one special token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<|end|>")


def with_blanks_in_tokens() -> Any:
    """A tokenizer as of SentencePiece: a token carries the blank before it, and decoding drops the first one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["▁the", "▁student", "s", "▁", "?", "<unk>"]
    model = Tokenizer(models.WordLevel(vocab={word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>")


BYTES, WORDS = byte_level(), with_blanks_in_tokens()


def cut(tokenizer: Any, ids: list[int]) -> tuple[list[str], Pieces]:
    pieces = Pieces(tokenizer)
    places = pieces.cut(ids, tokenizer.decode(ids, skip_special_tokens=True))
    table = pieces.table()
    assert [table["ids"][place] for place in places] == ids
    return [table["texts"][place] for place in places], pieces


@given(st.text(max_size=30))
def test_pieces_of_bytes_join_to_the_text(text: str) -> None:
    texts, pieces = cut(BYTES, BYTES(text)["input_ids"])
    assert "".join(texts) == text
    assert pieces.inexact == 0


@given(st.lists(st.integers(0, 255), max_size=20))
def test_pieces_of_bytes_that_are_no_text_join_to_what_the_tokenizer_makes_of_them(ids: list[int]) -> None:
    texts, pieces = cut(BYTES, ids)
    assert "".join(texts) == BYTES.decode(ids)
    assert pieces.inexact == 0


def test_the_tokens_of_one_character_are_one_piece_of_the_last_of_them() -> None:
    texts, _ = cut(BYTES, BYTES("aé😀")["input_ids"])
    assert texts == ["a", "", "é", "", "", "", "😀"]


def test_a_response_that_was_cut_within_a_character_ends_in_what_the_tokenizer_makes_of_it() -> None:
    texts, _ = cut(BYTES, BYTES("a😀")["input_ids"][:-1])
    assert texts == ["a", "", "", "\ufffd"]


@given(st.lists(st.integers(0, 4), max_size=12))
def test_blanks_that_decoding_drops_at_the_start_stand_where_the_text_has_them(ids: list[int]) -> None:
    texts, pieces = cut(WORDS, ids)
    assert "".join(texts) == WORDS.decode(ids)
    assert pieces.inexact == 0


def test_special_tokens_have_their_names_and_stay_out_of_the_text() -> None:
    texts, pieces = cut(BYTES, [*BYTES("é")["input_ids"], BYTES.eos_token_id])
    assert texts == ["", "é", "<|end|>"]
    assert pieces.table()["special"] == [0, 0, 1]


def test_text_that_the_pieces_do_not_join_to_is_counted() -> None:
    pieces = Pieces(BYTES)
    pieces.cut(BYTES("a b")["input_ids"], "ab")
    assert pieces.inexact == 1


def test_without_a_tokenizer_the_pieces_are_ids() -> None:
    pieces = Pieces(None)
    assert pieces.cut([7, 9, 7], "anything") == [0, 1, 0]
    assert pieces.table() == {"ids": [7, 9], "texts": ["[7]", "[9]"], "special": [0, 0]}


@pytest.mark.parametrize("damage", [lambda folder: None, lambda folder: (folder / "tokenizer.json").write_text("{")])
def test_a_checkpoint_without_a_usable_tokenizer_leaves_the_students(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    folder = tmp_path / "checkpoints/step_000001/hf"
    folder.mkdir(parents=True)
    damage(folder)
    assert len(load_tokenizer(tmp_path, make_config().student).get_vocab()) > 10


def test_the_newest_checkpoints_tokenizer_comes_before_the_students(tmp_path: Path) -> None:
    for step, tokenizer in ((9, WORDS), (10, BYTES)):
        tokenizer.save_pretrained(tmp_path / f"checkpoints/step_{step:06d}/hf")
    assert load_tokenizer(tmp_path, make_config().student).eos_token == "<|end|>"


def test_no_tokenizer_is_no_error(tmp_path: Path) -> None:
    assert load_tokenizer(tmp_path, str(tmp_path / "gone")) is None
