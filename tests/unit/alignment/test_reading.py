"""How a teacher reads bytes: any text survives, nothing is counted twice, and a changed text is noticed. Trained tokenizers."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers

from renio_pipeline.alignment.reading import Reader, TextChanged
from renio_pipeline.alignment.token_bytes import byte_alphabet, token_bytes
from renio_pipeline.config import ConfigError
from tests.unit.alignment.trained import END, byte_fallback, byte_level, normalised, unigram

BYTES = {"byte level": byte_level(), "byte fallback": byte_fallback()}  # those that can spell everything
ALL = BYTES | {"unigram": unigram()}
READERS = {name: Reader(made, name, "teacher.model") for name, made in ALL.items()}
MARK = "\u2581"  # stands for a space, so that SentencePiece cannot spell it


def test_the_alphabet_of_byte_level_bpe_is_that_of_the_library() -> None:
    assert byte_alphabet().keys() == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_alphabet().values()) == list(range(256))


@pytest.mark.parametrize("name", ALL)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters=MARK), max_size=30))
@example(text=" the  quick\n\nfox ")
@example(text="cafe\u0301 日本語 🎉 </s> <0xE6>")
@settings(max_examples=60, deadline=None)
def test_any_text_is_read_as_it_stands_and_each_of_its_bytes_once(name: str, text: str) -> None:
    found, data = READERS[name].read(text.encode()), text.encode()
    assert int(found.pieces.lengths.sum()) == len(data)
    assert len(found.ids) == int(found.sent.sum())
    if name in BYTES:
        assert bool(found.pieces.scored.all())
        assert b"".join(token_bytes(ALL[name], "", "").of(found.ids)) == data


def test_a_special_token_that_is_spelt_out_is_text_or_refused_and_ends_nothing() -> None:
    for name, made in BYTES.items():
        assert made.token_to_id(END) not in READERS[name].read(f"a {END} b".encode()).ids
    with pytest.raises(TextChanged):  # to a unigram model it is a piece like any other, and would be the end
        READERS["unigram"].read(f"a {END} b".encode())


@pytest.mark.parametrize("name", ALL)
@given(data=st.binary(max_size=12))
@example(data="日本語".encode()[:-1])
@settings(max_examples=60, deadline=None)
def test_bytes_that_are_no_text_are_read_as_bytes_or_left_out(name: str, data: bytes) -> None:
    if MARK.encode() in data and name != "byte level":
        return
    found = READERS[name].read(data)
    assert int(found.pieces.lengths.sum()) == len(data)
    if name in BYTES:
        assert bool(found.sent.all())
        pieces = [ALL[name].id_to_token(i) for i in found.ids]
        assert len(pieces) == len(found.pieces.lengths)


@pytest.mark.parametrize("name", ALL)
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_bytes_of_tokens_are_what_the_tokenizer_decodes_them_to(name: str, data: st.DataObject) -> None:
    made = ALL[name]
    text = data.draw(st.text(st.characters(codec="utf-8", exclude_characters=MARK), max_size=20))
    ids = made.encode(text, add_special_tokens=False).ids
    if name == "unigram" and made.token_to_id("<unk>") in ids:
        return
    assert b"".join(token_bytes(made, "", "").of(np.array(ids, np.int64))).decode() == made.decode(ids)


def test_special_tokens_and_ids_beyond_the_vocabulary_stand_for_nothing() -> None:
    made = byte_level()
    found = token_bytes(made, "", "")
    ids = [made.token_to_id(END), *made.encode("fox").ids, made.get_vocab_size() + 7]
    assert [len(piece) for piece in found.of(np.array(ids))][0 :: len(ids) - 1] == [0, 0]
    assert b"".join(found.of(np.array(ids))) == b"fox"


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_a_unicode_normal_form_is_left_out_because_it_would_change_the_text(form: str) -> None:
    reader = Reader(normalised(byte_level(), getattr(normalizers, form)()), "m", "teacher.model")
    for text in ("cafe\u0301 ﬁ ①", unicodedata.normalize("NFC", "cafe\u0301")):
        assert int(reader.read(text.encode()).pieces.lengths.sum()) == len(text.encode())


def test_a_text_that_a_tokenizer_changes_is_refused_with_the_place() -> None:
    reader = Reader(normalised(byte_level(), normalizers.Lowercase()), "m", "teacher.model")
    reader.read(b"all of it is low")
    with pytest.raises(TextChanged, match=r"'mostly Low' is read as 'mostly low' \(byte 7\)"):
        reader.read(b"mostly Low")
    with pytest.raises(TextChanged, match="is read as"):
        READERS["byte fallback"].read(f"a{MARK}b".encode())


@pytest.mark.parametrize("decoder", [decoders.WordPiece(), decoders.BPEDecoder(), None])
def test_a_spelling_that_is_not_known_is_refused_with_the_key(decoder: decoders.Decoder | None) -> None:
    made = Tokenizer.from_str(byte_level().to_str())
    made.decoder = decoder
    with pytest.raises(
        ConfigError, match=r"teacher.model: the tokenizer of 'm' spells texts in a way of which a token's bytes"
    ):
        Reader(made, "m", "teacher.model")
