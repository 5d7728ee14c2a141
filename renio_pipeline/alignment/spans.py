"""The spans that two tokenizations of one text share, and what the teacher says of each.

A span is a smallest stretch of the text at whose both ends both sides have a boundary between tokens. The sum of a side's
log-probabilities over a span's tokens is the log-probability that it gives to the span's text, so that a span has one
log-ratio, as a token has where both sides have one tokenizer.

Shape legend: T tokens of the student's response, T' of the teacher's, M pieces that the teacher cut it into.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NO_SPAN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """One side's tokens, by the bytes of the text that each stands for. Together they are the whole text, in order."""

    lengths: np.ndarray  # [M] int64, bytes; 0 for a token that stands for none
    scored: np.ndarray  # [M] bool; False where this side has no token for the bytes, or one that stands for any text


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Which span each token is in: numbers from 0, or NO_SPAN for a token that nothing is known of."""

    student: np.ndarray  # [T] int64
    teacher: np.ndarray  # [T'] int64
    count: int

    def laid(self, student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
        """The teacher's log-probabilities, laid on the student's tokens: [T] float32, nats.

        A span's log-ratio is divided equally among the student's tokens in it. So the sum over a span's tokens is the sum of
        the teacher's; where a span is one token of the student, it is that sum itself, digit for digit; and a token without
        a span has the student's own log-probability, whose ratio is 0.

        student [T], teacher [T']: nats, of each side's own tokens.
        """
        own, theirs = (np.asarray(x, np.float64) for x in (student, teacher))
        known = self.student != NO_SPAN
        inside = self.student[known]
        sizes = np.bincount(inside, minlength=self.count)
        ours = np.bincount(inside, own[known], minlength=self.count)
        read = self.teacher != NO_SPAN
        taught = np.bincount(self.teacher[read], theirs[read], minlength=self.count)
        found = own.copy()
        with np.errstate(invalid="ignore"):  # −inf on both sides: neither gives the span a probability
            shifted = own[known] + ((taught - ours) / np.maximum(sizes, 1))[inside]
        found[known] = np.where(sizes[inside] == 1, taught[inside], shifted)
        return found.astype(np.float32)

    @property
    def places(self) -> np.ndarray:
        """[T] int32: the teacher's token at the same place, where a span is one token of each side; NO_SPAN elsewhere.

        There both sides predict after the same text, so their distributions can be compared.
        """
        sizes, theirs = (np.bincount(x[x != NO_SPAN], minlength=self.count) for x in (self.student, self.teacher))
        only = np.full(self.count + 1, NO_SPAN, np.int32)  # the last for tokens without a span, whose number is -1
        only[self.teacher] = np.arange(len(self.teacher))
        only[:-1][(sizes != 1) | (theirs != 1)] = NO_SPAN
        only[NO_SPAN] = NO_SPAN
        return only[self.student]


def spans_of(student: Pieces, teacher: Pieces, sent: np.ndarray) -> Spans:
    """Align two tokenizations of the same bytes.

    A token that stands for no bytes is, of the student's, in no span; of the teacher's, in the span that it stands before, or
    within, or else in the last one: what the teacher paid for it, it paid for that text. A span that a side cannot score as a
    whole is none.

    Args:
        sent: [M] bool, the teacher's pieces that are tokens of its own; the others are bytes that it has no token for.

    Raises:
        ValueError: the two are not of equally many bytes.
    """
    if (ours := int(student.lengths.sum())) != (theirs := int(teacher.lengths.sum())):
        raise ValueError(f"the student's tokens are {ours} bytes, and the teacher's {theirs}")
    own_ends, their_ends = student.lengths.cumsum(), teacher.lengths.cumsum()
    own_full, their_full = student.lengths > 0, teacher.lengths > 0
    ends = np.intersect1d(own_ends[own_full], their_ends[their_full])  # of the spans, in order
    own = np.where(own_full, np.searchsorted(ends, own_ends), NO_SPAN)
    after = np.minimum(np.searchsorted(ends, their_ends, side="right"), len(ends) - 1)
    their = np.where(their_full, np.searchsorted(ends, their_ends), after)
    unknown = np.zeros(len(ends) + 1, bool)
    unknown[NO_SPAN] = True
    unknown[own[own_full & ~student.scored]] = True
    unknown[their[~teacher.scored]] = True
    numbers = np.where(unknown, NO_SPAN, np.cumsum(~unknown) - 1)
    return Spans(student=numbers[own], teacher=numbers[their][sent], count=int((~unknown).sum()))
