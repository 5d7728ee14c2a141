"""What each token of a response wrote, so that the pieces join to the response's text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from renio_pipeline.config import RunConfig
from renio_pipeline.models.info import resolve

BROKEN = "\ufffd"  # what a part of a character decodes to


def load_tokenizer(path: Path, config: RunConfig) -> Any | None:
    """The run's own, from its newest checkpoint or its student, without a network; None if there is none."""
    from transformers import AutoTokenizer

    checkpoints = sorted((path / "checkpoints").glob("step_*/hf"), reverse=True)
    for folder in [*map(str, checkpoints[:1]), resolve(config.student)]:
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception:  # a folder without one, or with a damaged one, gives any of them
            continue
        if len(tokenizer.get_vocab()) > 1:  # transformers makes up an empty tokenizer where a folder has none
            return tokenizer
    return None


class Pieces:
    """A table of the pieces of a run's responses. ``cut`` adds to it.

    A token that ends in the middle of a character has the empty piece: the next one that is not empty is written by all of
    them. Special tokens, which the response's text leaves out, have their names.
    """

    def __init__(self, tokenizer: Any | None) -> None:
        self._tokenizer = tokenizer
        self.known = tokenizer is not None  # otherwise pieces are ids
        self._special = set(tokenizer.all_special_ids) if tokenizer else set()
        self._alone: dict[int, str] = {}  # what a token decodes to by itself
        self._index: dict[tuple[int, str], int] = {}
        self.inexact = 0  # responses whose pieces do not join to their text

    def cut(self, ids: Sequence[int], text: str) -> list[int]:
        """The place in the table of each token of a response."""
        if self._tokenizer is None:
            return [self._place(i, f"[{i}]") for i in ids]
        pieces = [self._by_itself(i) for i in ids]
        if self._written(ids, pieces) != text:
            pieces = self._in_context(ids)
            self.inexact += self._written(ids, pieces) != text
        return [self._place(i, piece) for i, piece in zip(ids, pieces, strict=True)]

    def table(self) -> dict[str, list[Any]]:
        """Columns: the token's id, its piece, and whether it is special."""
        return {
            "ids": [i for i, _ in self._index],
            "texts": [piece for _, piece in self._index],
            "special": [int(i in self._special) for i, _ in self._index],
        }

    def _place(self, token_id: int, piece: str) -> int:
        return self._index.setdefault((token_id, piece), len(self._index))

    def _by_itself(self, token_id: int) -> str:
        if token_id not in self._alone:
            self._alone[token_id] = self._decode([token_id], special=True)
        return self._alone[token_id]

    def _written(self, ids: Sequence[int], pieces: Sequence[str]) -> str:
        return "".join(piece for i, piece in zip(ids, pieces, strict=True) if i not in self._special)

    def _in_context(self, ids: Sequence[int]) -> list[str]:
        """Each piece is what decoding gains by its token: decoders join bytes to characters and drop blanks at the start."""
        pieces: list[str] = []
        since, done = 0, 0  # decoding begins at ``since``, and ``done`` tokens have their pieces
        plain = [i for i in ids if i not in self._special]
        for end in range(1, len(plain) + 1):
            before, after = self._decode(plain[since:done]), self._decode(plain[since:end])
            if end < len(plain) and (after.endswith(BROKEN) or len(after) <= len(before)):
                pieces.append("")
                continue
            pieces.append(after[len(before) :])
            since, done = done, end
        remaining = iter(pieces)
        return [self._by_itself(i) if i in self._special else next(remaining) for i in ids]

    def _decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        assert self._tokenizer is not None
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=not special)
        return text
