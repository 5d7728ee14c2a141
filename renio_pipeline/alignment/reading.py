"""How a teacher cuts given bytes into tokens of its own.

Text goes through the teacher's tokenizer, as an answer that it would write. Bytes that are no text, such as half a character at
the end of a truncated response, are its tokens of single bytes, where it has any. What it reads must be the bytes that were
given: a tokenizer that lower-cases, for example, would score another text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from renio_pipeline.alignment.spans import Pieces
from renio_pipeline.alignment.token_bytes import TokenBytes, token_bytes

_UNICODE_FORMS = frozenset({"NFC", "NFD", "NFKC", "NFKD"})


class TextChanged(ValueError):
    """A tokenizer does not read a text as it stands. The text says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A response in the teacher's tokens."""

    ids: np.ndarray  # [T'] int32
    pieces: Pieces  # [M] those tokens, and the bytes that it has none for
    sent: np.ndarray  # [M] bool, which of the pieces are tokens


class Reader:
    """Usage: ``Reader(tokenizer.backend_tokenizer, model, key).read(data)``."""

    def __init__(self, backend: Any, model: str, key: str) -> None:
        """
        Args:
            backend: a ``tokenizers.Tokenizer``; it is not changed.
            model, key: of the teacher, for messages.

        Raises:
            ConfigError: see ``token_bytes``.
        """
        from tokenizers import Tokenizer

        self._own = Tokenizer.from_str(_as_written(backend.to_str()))
        self._own.no_truncation()
        self._own.no_padding()
        self._own.encode_special_tokens = True  # spelt out in a response, they are text, and end nothing
        self.bytes: TokenBytes = token_bytes(self._own, model, key)
        self._unknown = _unknown_id(self._own)

    def read(self, data: bytes) -> Reading:
        """Cut a text into tokens. Raises TextChanged if their bytes are not ``data``."""
        ids, lengths, scored = list[int](), list[int](), list[bool]()
        for text, rest in _texts(data):
            for i, length in self._tokens(text):
                ids.append(i)
                lengths.append(length)
                scored.append(i != self._unknown)
            for byte in rest:
                ids.append(self.bytes.singles.get(byte, -1))
                lengths.append(1)
                scored.append(byte in self.bytes.singles)
        cut = np.array(ids, np.int32)
        pieces = Pieces(lengths=np.array(lengths, np.int64), scored=np.array(scored, bool))
        return Reading(ids=cut[cut >= 0], pieces=pieces, sent=cut >= 0)

    def _tokens(self, text: str) -> Iterator[tuple[int, int]]:
        """Each token of a text, and how many of its bytes it stands for."""
        if not text:
            return
        found = self._own.encode(text, add_special_tokens=False)
        parts = [
            text[slice(*offsets)].encode() if i == self._unknown else self.bytes.table[i]
            for i, offsets in zip(found.ids, found.offsets, strict=True)
        ]
        data, read = text.encode(), b"".join(parts)
        if read == b" " + data:  # a space that the tokenizer puts before every text
            first = next(at for at, part in enumerate(parts) if part)
            parts[first] = parts[first][1:]
        elif read != data:
            raise TextChanged(_difference(data, read))
        yield from zip(found.ids, map(len, parts), strict=True)


def _texts(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Longest texts, each with the bytes after it that are none."""
    while data:
        try:
            yield data.decode(), b""
            return
        except UnicodeDecodeError as error:
            yield data[: error.start].decode(), data[error.start : error.end]
            data = data[error.end :]


def _as_written(spec: str) -> str:
    """A tokenizer without its Unicode normal form, which would change the text; it can spell every character without that."""
    found = json.loads(spec)
    normalizer = found["normalizer"]
    if normalizer is not None and normalizer["type"] == "Sequence":
        kept = [each for each in normalizer["normalizers"] if each["type"] not in _UNICODE_FORMS]
        found["normalizer"] = {**normalizer, "normalizers": kept} if kept else None
    elif normalizer is not None and normalizer["type"] in _UNICODE_FORMS:
        found["normalizer"] = None
    return json.dumps(found)


def _unknown_id(backend: Any) -> int | None:
    """The token that stands for any text that the vocabulary cannot spell; None: there is none."""
    model: Mapping[str, Any] = json.loads(backend.to_str())["model"]
    if model["type"] == "Unigram":
        found: int | None = model["unk_id"]
        return found
    name = model.get("unk_token")
    return None if name is None else backend.token_to_id(name)


def _difference(given: bytes, read: bytes) -> str:
    at = next((i for i, (one, other) in enumerate(zip(given, read, strict=False)) if one != other), min(len(given), len(read)))
    start = max(0, at - 8)
    shown = (part[start : at + 12].decode("utf-8", "replace") for part in (given, read))
    return "{!r} is read as {!r} (byte {})".format(*shown, at)
