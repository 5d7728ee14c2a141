"""Which bytes of a text each token of a vocabulary stands for.

A tokenizer's decoder says how tokens are spelt: byte-level BPE has a character for each byte, SentencePiece a mark for a space
and tokens for single bytes. Bytes, not characters, because a token may be a part of a character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from renio_pipeline.config import ConfigError

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PRINTED = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))  # bytes that byte-level BPE spells as themselves


def byte_alphabet() -> dict[str, int]:
    """The byte that each character of byte-level BPE's spelling stands for."""
    others = [byte for byte in range(0x100) if byte not in set(_PRINTED)]
    return {chr(byte): byte for byte in _PRINTED} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


@dataclass(frozen=True)
class TokenBytes:
    """The bytes of a vocabulary's tokens. Special tokens, such as the end, stand for none."""

    table: tuple[bytes, ...]  # by id; empty for a special token, and for an id without a token
    strips: bool  # the first space of a text is no part of it

    def of(self, ids: np.ndarray) -> list[bytes]:
        """The bytes of each token of a text. ``ids`` [T]; one beyond the vocabulary has none."""
        found = [self.table[i] if i < len(self.table) else b"" for i in ids.tolist()]
        first = next((at for at, piece in enumerate(found) if piece), None)
        if self.strips and first is not None and found[first].startswith(b" "):
            found[first] = found[first][1:]
        return found

    @cached_property
    def singles(self) -> dict[int, int]:
        """The token of each byte that has one of its own."""
        return {piece[0]: i for i, piece in reversed(list(enumerate(self.table))) if len(piece) == 1}


def token_bytes(backend: Any, model: str, key: str) -> TokenBytes:
    """Read a vocabulary's bytes from a ``tokenizers.Tokenizer``.

    Args:
        model, key: of the model, for messages.

    Raises:
        ConfigError: the tokenizer spells texts in a way that is not known here.
    """
    spec = json.loads(backend.to_str())
    steps = list(_steps(spec["decoder"]))
    kinds = {step["type"] for step in steps}
    if not kinds or not kinds <= {"ByteLevel", "ByteFallback", "Fuse", "Replace", "Strip", "Metaspace"}:
        raise ConfigError(
            f"{key}: the tokenizer of {model!r} spells texts in a way of which a token's bytes are not known (its decoder: "
            f"{', '.join(sorted(kinds)) or 'none'}); known are byte-level BPE and SentencePiece"
        )
    alphabet = byte_alphabet() if "ByteLevel" in kinds else None
    spelt = {i: _bytes(token, steps, alphabet) for token, i in backend.get_vocab(with_added_tokens=False).items()}
    for added in spec["added_tokens"]:
        spelt[added["id"]] = b"" if added["special"] else added["content"].encode()
    strips = any(
        (step["type"] == "Strip" and step["content"] == " " and step["start"] > 0)
        or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )
    return TokenBytes(tuple(spelt.get(i, b"") for i in range(max(spelt) + 1)), strips)


def _steps(decoder: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if decoder is not None and decoder["type"] == "Sequence":
        for each in decoder["decoders"]:
            yield from _steps(each)
    elif decoder is not None:
        yield decoder


def _bytes(token: str, steps: list[Mapping[str, Any]], alphabet: Mapping[str, int] | None) -> bytes:
    kinds = {step["type"] for step in steps}
    if "ByteFallback" in kinds and (byte := _BYTE.fullmatch(token)):
        return bytes([int(byte[1], 16)])
    for step in steps:
        if step["type"] == "Metaspace":
            token = token.replace(step["replacement"], " ")
        elif step["type"] == "Replace" and "String" in step["pattern"]:
            token = token.replace(step["pattern"]["String"], step["content"])
    if alphabet is not None and all(character in alphabet for character in token):
        return bytes(alphabet[character] for character in token)
    return token.encode()
