"""A response in a teacher's tokens and back: ends by their role, cut responses, equal tokenizers. Trained tokenizers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from renio_pipeline.alignment.reading import Reader
from renio_pipeline.alignment.retokeniser import CannotScore, Retokeniser
from renio_pipeline.alignment.spans import NO_SPAN
from renio_pipeline.alignment.token_bytes import token_bytes
from renio_pipeline.types import Prompt, Rollout, Row, ScoredRollout, TeacherScores, Version
from tests.unit.alignment.trained import END, byte_fallback, byte_level, normalised, unigram

KINDS = {"byte level": byte_level(), "few merges": byte_level(280, regex=False), "byte fallback": byte_fallback()}
PROMPT = 3  # tokens of the teacher's prompt


def between(student: Tokenizer, teacher: Tokenizer, **changes: Any) -> Retokeniser:
    own, their = student.token_to_id(END), teacher.token_to_id(END)
    given = {"student_ends": {own}, "teacher_ends": {own: their}, "context": 10_000} | changes
    return Retokeniser(student=token_bytes(student, "s", "student"), reader=Reader(teacher, "t", "teacher.model"), **given)


def rollout(ids: list[int], seed: int = 0) -> Rollout:
    prompt = Prompt(
        sample_id=7, row=Row(id="a", problem=""), student_ids=np.zeros(2, np.int32), teacher_ids=np.zeros(PROMPT, np.int32)
    )
    logprobs = np.random.default_rng(seed).uniform(-9, 0, len(ids)).astype(np.float32)
    return Rollout(
        prompt=prompt, token_ids=np.array(ids, np.int32), logprobs=logprobs, stop_reason="stop", version=Version(0, 0)
    )


def scored_back(retokeniser: Retokeniser, written: Rollout, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """What the teacher says of its own tokens, and what is laid on the student's."""
    read = retokeniser.read(written)
    teacher = np.random.default_rng(seed).uniform(-9, 0, len(read.rollout.token_ids)).astype(np.float32)
    scores = TeacherScores(sample_id=7, logprobs=teacher, replica="t/0")
    found = retokeniser.laid(written, read, ScoredRollout(rollout=read.rollout, scores=scores))
    assert found.rollout is written
    assert (found.scores.replica, found.scores.sample_id) == ("t/0", 7)
    assert found.scores.logprobs.shape == written.logprobs.shape
    return teacher, found.scores.logprobs


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\u2581"), max_size=25), stops=st.booleans())
@settings(max_examples=40, deadline=None)
def test_equal_tokenizers_give_the_teachers_numbers_digit_for_digit(name: str, text: str, stops: bool) -> None:
    made = KINDS[name]
    ids = made.encode(text.lstrip(" "), add_special_tokens=False).ids + [made.token_to_id(END)] * stops
    written = rollout(ids)
    retokeniser = between(made, made)
    if all(token_bytes(made, "", "").of(written.token_ids[: len(ids) - stops])):  # without a token that stands for nothing
        assert retokeniser.read(written).rollout.token_ids.tolist() == ids
        teacher, laid = scored_back(retokeniser, written)
        assert laid.tolist() == teacher.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("student", KINDS)
@pytest.mark.parametrize("teacher", KINDS)
@given(data=st.data(), stops=st.booleans())
@settings(max_examples=30, deadline=None)
def test_whatever_a_student_samples_survives_and_the_sums_are_the_teachers(
    student: str, teacher: str, data: st.DataObject, stops: bool
) -> None:
    """Random tokens, not the encoding of a text: halves of characters, special tokens in the middle, unusual cuts."""
    made = KINDS[student]
    ids = data.draw(st.lists(st.integers(0, made.get_vocab_size() + 3), max_size=20)) + [made.token_to_id(END)] * stops
    written, retokeniser = rollout(ids), between(made, KINDS[teacher])
    text = b"".join(retokeniser.student.of(written.token_ids))
    if "\u2581".encode() in text and teacher == "byte fallback":
        with pytest.raises(CannotScore, match="does not read the response as it stands"):
            retokeniser.read(written)
        return
    read = retokeniser.read(written)
    theirs, laid = scored_back(retokeniser, written)
    inside = read.spans.student != NO_SPAN
    if inside.any():
        np.testing.assert_allclose(laid[inside].astype(np.float64).sum(), theirs.astype(np.float64).sum(), atol=1e-3)
    assert laid[~inside].tolist() == written.logprobs[~inside].tolist()
    assert np.isfinite(laid).all()


@pytest.mark.parametrize("teacher", ["few merges", "byte fallback"])
def test_an_end_is_the_teachers_end_and_has_its_probability(teacher: str) -> None:
    own, their = KINDS["byte level"], KINDS[teacher]
    ids = [*own.encode("the lazy dog").ids, own.token_to_id(END)]
    retokeniser = between(own, their)
    assert retokeniser.read(rollout(ids)).rollout.token_ids[-1] == their.token_to_id(END)
    teacher_logprobs, laid = scored_back(retokeniser, rollout(ids))
    assert laid[-1] == teacher_logprobs[-1]
    cut, whole = rollout(ids[:-1]), rollout(ids)
    assert len(retokeniser.read(cut).rollout.token_ids) == len(retokeniser.read(whole).rollout.token_ids) - 1


def test_a_teacher_without_an_end_says_nothing_of_the_students() -> None:
    own = KINDS["byte level"]
    written = rollout([*own.encode("fox").ids, own.token_to_id(END)])
    retokeniser = between(own, KINDS["byte fallback"], teacher_ends={})
    assert KINDS["byte fallback"].token_to_id(END) not in retokeniser.read(written).rollout.token_ids
    assert scored_back(retokeniser, written)[1][-1] == written.logprobs[-1]


def test_half_a_character_at_the_cut_is_scored_by_the_teachers_bytes_or_not_at_all() -> None:
    own = byte_level(257, regex=False)
    ids = own.encode("a日").ids[:3]  # the letter, and two of the character's three bytes
    for teacher, sent in ((byte_fallback(), True), (unigram(), False)):
        read = between(own, teacher).read(rollout(ids))
        assert ((read.spans.student != NO_SPAN).tolist() == [True] * 3) is sent


def test_a_response_that_the_teacher_changes_or_has_no_room_for_is_refused_with_the_reason() -> None:
    own = KINDS["byte level"]
    lower = normalised(KINDS["few merges"], normalizers.Lowercase())
    with pytest.raises(CannotScore, match="does not read the response as it stands: 'the FOX' is read as 'the fox'"):
        between(own, lower).read(rollout(own.encode("the FOX").ids))
    written = rollout(own.encode("the quick brown fox").ids)
    needed = len(between(own, own).read(written).rollout.token_ids) + PROMPT + 1
    between(own, own, context=needed).read(written)
    with pytest.raises(CannotScore, match=f"these are {needed}, and the teacher's engine holds {needed - 1}"):
        between(own, own, context=needed - 1).read(written)


def test_an_empty_response_stays_empty() -> None:
    teacher, laid = scored_back(between(*2 * (KINDS["byte level"],)), rollout([]))
    assert (len(teacher), len(laid)) == (0, 0)


def test_a_payload_says_which_of_the_teachers_tokens_stand_at_the_students_places() -> None:
    own, their = KINDS["byte level"], KINDS["few merges"]
    written = rollout([*own.encode("the fox (ZQ) jumps!?").ids, own.token_to_id(END)])
    retokeniser = between(own, their, name="maths")
    read = retokeniser.read(written)
    scores = TeacherScores(sample_id=7, logprobs=np.zeros(len(read.rollout.token_ids), np.float32), payload="table")
    found = retokeniser.laid(written, read, ScoredRollout(rollout=read.rollout, scores=scores)).scores
    assert found is not None
    assert (found.payload.part, found.payload.teacher) == ("table", "maths")
    pairs = [(t, u) for t, u in enumerate(found.payload.places.tolist()) if u != NO_SPAN]
    assert 1 < len(pairs) < len(written.token_ids)
    for t, u in pairs[:-1]:
        assert own.id_to_token(int(written.token_ids[t])) == their.id_to_token(int(read.rollout.token_ids[u]))
    assert pairs[-1] == (len(written.token_ids) - 1, len(read.rollout.token_ids) - 1)  # the ends, whatever their names


def test_a_first_token_that_one_side_spells_with_a_space_is_no_place() -> None:
    own, their = KINDS["byte level"], KINDS["byte fallback"]
    ids = own.encode("1+1").ids
    assert between(own, their).read(rollout(ids)).places[0] == NO_SPAN
    assert between(own, own).read(rollout(ids)).places[0] == 0
