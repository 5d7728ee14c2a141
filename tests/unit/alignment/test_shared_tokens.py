"""Which tokens two vocabularies share, of trained tokenizers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tokenizers import Tokenizer

from renio_pipeline.alignment.shared_tokens import NOT_SHARED, Names, shared_tokens
from renio_pipeline.alignment.token_bytes import TokenBytes, token_bytes
from tests.unit.alignment.trained import END, byte_fallback, byte_level, unigram

KINDS = {
    "byte level": byte_level(),
    "few merges": byte_level(280, regex=False),
    "byte fallback": byte_fallback(),
    "unigram": unigram(),
}


def side(made: Tokenizer) -> tuple[TokenBytes, Names]:
    return token_bytes(made, "", ""), {i: name for name, i in made.get_vocab().items()}


@pytest.mark.parametrize(("teacher", "student"), list(itertools.product(KINDS, KINDS)))
def test_shared_tokens_have_the_same_bytes_and_no_token_is_in_two_pairs(teacher: str, student: str) -> None:
    (theirs, names), (own, own_names) = side(KINDS[teacher]), side(KINDS[student])
    end, own_end = KINDS[teacher].token_to_id(END), KINDS[student].token_to_id(END)
    found = shared_tokens((theirs, names), (own, own_names), {end: own_end}, len(theirs.table) + 5)
    pairs = {i: int(found[i]) for i in np.flatnonzero(found != NOT_SHARED)}
    assert len(set(pairs.values())) == len(pairs)
    assert {theirs.table[i] for i in pairs} == {own.table[i] for i in pairs.values()}
    assert all(theirs.table[i] == own.table[j] for i, j in pairs.items())
    common = set(theirs.table) & set(own.table) - {b""}
    assert {theirs.table[i] for i in pairs} - {b""} == common
    if teacher == student and teacher in ("byte level", "few merges"):
        assert found[: len(theirs.table)].tolist() == list(range(len(theirs.table)))


def test_ends_are_shared_by_their_role_and_special_tokens_by_their_name() -> None:
    teacher = (TokenBytes((b"", b"", b"", b"a"), strips=False), {0: "<eos>", 1: "</s>", 2: "<tool>", 3: "a"})
    student = (TokenBytes((b"a", b"", b"", b""), strips=False), {0: "a", 1: "<tool>", 2: "<eos>", 3: "<pad>"})
    assert shared_tokens(teacher, student, {1: 2}, 4).tolist() == [NOT_SHARED, 2, 1, 0]
    assert shared_tokens(teacher, student, {}, 3).tolist() == [2, NOT_SHARED, 1]


def test_of_a_character_and_its_byte_the_character_counts() -> None:
    made, (known, names) = byte_fallback(), side(byte_fallback())
    found = shared_tokens((known, names), (known, names), {}, len(known.table))
    assert known.table[made.token_to_id("<0x61>")] == known.table[made.token_to_id("a")]
    assert found[made.token_to_id("a")] == made.token_to_id("a")
    assert found[made.token_to_id("<0x61>")] == NOT_SHARED
