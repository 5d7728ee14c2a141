"""One response in the tokens of a teacher, and that teacher's scores back on the student's tokens."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from renio_pipeline.alignment.reading import Reader, TextChanged
from renio_pipeline.alignment.spans import NO_SPAN, Pieces, Spans, spans_of
from renio_pipeline.alignment.token_bytes import TokenBytes
from renio_pipeline.types import Aligned, Rollout, ScoredRollout

END = 1  # the length that the end of a response has on both sides, as if it were a byte


class CannotScore(ValueError):
    """A teacher cannot score a response. The text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retokenised:
    """A rollout as the teacher reads it: its ``token_ids`` are the teacher's, of which no log-probabilities are known yet."""

    rollout: Rollout
    spans: Spans
    places: np.ndarray  # [T] see ``Spans.places``


@dataclass(frozen=True, kw_only=True)
class Retokeniser:
    """Between a student and one teacher."""

    student: TokenBytes
    reader: Reader
    student_ends: Collection[int]  # tokens at which the student's responses end
    teacher_ends: dict[int, int]  # the teacher's end for each of them; for one that is missing, the teacher has none
    context: int  # tokens of prompt and response that the teacher holds, and the one that scoring adds
    name: str = ""  # the teacher's, where there are several

    def read(self, rollout: Rollout) -> Retokenised:
        """Raises CannotScore if the teacher would read another text, or has no room for this one."""
        ids = rollout.token_ids
        end = int(ids[-1]) if len(ids) and int(ids[-1]) in self.student_ends else None
        parts = self.student.of(ids if end is None else ids[:-1])
        lengths = np.array([*map(len, parts), *([] if end is None else [0])], np.int64)
        try:
            read = self.reader.read(b"".join(parts))
        except TextChanged as error:
            raise CannotScore(f"the teacher's tokenizer does not read the response as it stands: {error}") from None
        theirs, pieces, sent = read.ids, read.pieces, read.sent
        if end is not None and (other := self.teacher_ends.get(end)) is not None:
            lengths[-1] = END
            theirs, sent = np.append(theirs, np.int32(other)), np.append(sent, True)
            pieces = Pieces(lengths=np.append(pieces.lengths, END), scored=np.append(pieces.scored, True))
        if (needed := len(rollout.prompt.teacher_ids) + len(theirs) + 1) > self.context:
            raise CannotScore(
                f"the response has {len(ids)} of the student's tokens and {len(theirs)} of the teacher's; with its prompt and "
                f"the one more that scoring needs these are {needed}, and the teacher's engine holds {self.context}"
            )
        own = Pieces(lengths=lengths, scored=np.ones(len(lengths), bool))
        asked = replace(rollout, token_ids=theirs, logprobs=np.zeros(len(theirs), np.float32))
        spans = spans_of(own, pieces, sent)
        places = spans.places
        if self.student.strips != self.reader.bytes.strips:
            places[np.flatnonzero(lengths)[:1]] = NO_SPAN  # only one side spells the first token with a space before it
        return Retokenised(rollout=asked, spans=spans, places=places)

    def laid(self, rollout: Rollout, read: Retokenised, scored: ScoredRollout) -> ScoredRollout:
        """What the teacher said of the student's rollout: ``scored`` is of ``read``, which is of ``rollout``."""
        assert scored.scores is not None, "a teacher scored it"
        laid = read.spans.laid(rollout.logprobs, scored.scores.logprobs)
        payload = scored.scores.payload
        if payload is not None:
            payload = Aligned(part=payload, places=read.places, teacher=self.name)
        return ScoredRollout(rollout=rollout, scores=replace(scored.scores, logprobs=laid, payload=payload))
