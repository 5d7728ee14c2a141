"""The text of each token of a response, such that the pieces join to the response's text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from renio_pipeline.models.info import resolve

BROKEN = "\ufffd"  # decoded from an incomplete character
FEW, MOST_DECODED = 8, 1 << 17  # tokens of a text that is remembered, and how many such texts


def load_tokenizer(path: Path, student: str) -> Any | None:
    """The run's tokenizer, from its newest checkpoint or its student, without a network; None if there is none."""
    from transformers import AutoTokenizer

    checkpoints = sorted((path / "checkpoints").glob("step_*/hf"), reverse=True)
    for folder in [*map(str, checkpoints[:1]), resolve(student)]:
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception:  # a folder without a tokenizer, or with a damaged one, may raise any type
            continue
        if len(tokenizer.get_vocab()) > 1:  # transformers creates an empty tokenizer if a folder has none
            return tokenizer
    return None


class Pieces:
    """A table of the pieces of a run's responses, to which ``cut`` adds.

    A token that ends in the middle of a character has an empty piece; the next piece that is not empty belongs to all of them.
    Special tokens, which the response's text omits, are shown by name.
    """

    def __init__(self, tokenizer: Any | None) -> None:
        self._tokenizer = tokenizer
        self.known = tokenizer is not None  # otherwise the pieces are token ids
        self._special = set(tokenizer.all_special_ids) if tokenizer else set()
        # A tokenizer takes 20 times as long for a few ids as to look them up, and the same few come again and again.
        self._remembered = lru_cache(MOST_DECODED)(self._decoded)
        self._index: dict[tuple[int, str], int] = {}
        self.inexact = 0  # responses whose pieces do not join to their text

    def cut(self, ids: Sequence[int], text: str) -> list[int]:
        """The index in the table of each token of a response."""
        if self._tokenizer is None:
            return [self._place(i, f"[{i}]") for i in ids]
        pieces = [self._decode((i,), special=True) for i in ids]
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

    def _written(self, ids: Sequence[int], pieces: Sequence[str]) -> str:
        return "".join(piece for i, piece in zip(ids, pieces, strict=True) if i not in self._special)

    def _in_context(self, ids: Sequence[int]) -> list[str]:
        """Each piece is the text that its token adds: decoders join bytes into characters and drop blanks at the start."""
        pieces: list[str] = []
        since, done = 0, 0  # decoding starts at ``since``; ``done`` tokens have their pieces
        plain = tuple(i for i in ids if i not in self._special)
        for end in range(1, len(plain) + 1):
            before, after = self._decode(plain[since:done]), self._decode(plain[since:end])
            if end < len(plain) and (after.endswith(BROKEN) or len(after) <= len(before)):
                pieces.append("")
                continue
            pieces.append(after[len(before) :])
            since, done = done, end
        remaining = iter(pieces)
        return [self._decode((i,), special=True) if i in self._special else next(remaining) for i in ids]

    def _decode(self, ids: tuple[int, ...], *, special: bool = False) -> str:
        """Long ones are not remembered: bytes that never become a character would fill the memory with all their beginnings."""
        return (self._remembered if len(ids) <= FEW else self._decoded)(ids, special=special)

    def _decoded(self, ids: tuple[int, ...], *, special: bool = False) -> str:
        assert self._tokenizer is not None
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=not special)
        return text
