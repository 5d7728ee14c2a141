"""A teacher's analysis of a reference solution: the prompt that asks for it, and the prompt that has it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from renio_pipeline.data.prompts import Encoder
from renio_pipeline.types import Continuation, Row

PLACEHOLDER = "[the teacher's analysis]"  # stands in its prompt until it has written it
THOUGHT = "</think>"  # before it a model talks to itself, after it stands what it was asked for
_THINKING = ("<think>", THOUGHT)
_LAST_END = re.compile(r".*(?:(?:(?<!\d)\.|[!?:;。！？])['\")\]]*(?=\s)|\n)", re.DOTALL)  # of a sentence, or a line; not 1.


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    text: str  # as it stands in the teacher's prompt; may be empty
    tokens: int  # that the teacher wrote
    truncated: bool  # at the most tokens that it may write


class AnalysisPrompts:
    """Renders the prompts, and makes text of what the teacher wrote."""

    def __init__(self, encoder: Encoder, tokenizer: Any, longest: int) -> None:
        """``longest``: tokens that a teacher's prompt may have."""
        self._encoder, self._tokenizer, self._longest = encoder, tokenizer, longest
        special = {*tokenizer.all_special_tokens, *(t.content for t in tokenizer.added_tokens_decoder.values() if t.special)}
        self._control = sorted({*special, *_THINKING} - {""}, key=len, reverse=True)

    def asked(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """The prompts that ask for the analyses of rows' solutions, [P] int32 each."""
        return self._encoder.encode(rows, "reasoning")

    def read(self, written: Continuation) -> Analysis:
        """The text of an analysis.

        What a thinking model thought before is no part of it, unless it wrote nothing else. A truncated text ends with its last
        whole sentence or line. Control tokens are removed, also those that are spelt out in several tokens: in a prompt they
        would end the teacher's turn, or begin another's.
        """
        text = str(self._tokenizer.decode(written.token_ids, skip_special_tokens=False))
        truncated = written.stop_reason == "length"
        text = self._without_control(text.rpartition(THOUGHT)[2])
        if truncated and (whole := _LAST_END.match(text)):
            text = whole[0]
        return Analysis(text=text.strip(), tokens=len(written.token_ids), truncated=truncated)

    def taught(self, row: Row, text: str) -> np.ndarray:
        """The teacher's prompt with its analysis, [P] int32.

        Text that was decoded may be encoded in more tokens than it was written in. What then is too much is cut from its end.
        """
        while True:
            (ids,) = self._encoder.encode([row], "teacher", reasoning=text)
            if len(ids) <= self._longest or not text:
                return ids
            own = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            kept = str(self._tokenizer.decode(own[: max(0, len(own) - (len(ids) - self._longest))]))
            text = self._without_control(kept) if len(kept) < len(text) else text[:-1]

    def _without_control(self, text: str) -> str:
        while any(token in text for token in self._control):  # again, as what is left may spell another one
            for token in self._control:
                text = text.replace(token, "")
        return text
