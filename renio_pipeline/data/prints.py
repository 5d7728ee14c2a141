"""Fingerprints of rows: by them a resume knows whether the data is what it was, and a live run whether a row still is.

64 bits each. Of a million rows two have the same by chance once in thirty million data sets.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

import numpy as np

from renio_pipeline.run_dir.data_record import Prints
from renio_pipeline.types import Row

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiples of it differ modulo 2^64


class PrintsMaker:
    """Usage: ``add`` for each row in turn, then ``made``. Keeps 32 bytes per row."""

    def __init__(self) -> None:
        self._identities, self._contents, self._prompts, self._lines = array("Q"), array("Q"), array("Q"), array("q")

    def add(self, row: Row, prompts: Sequence[np.ndarray]) -> None:
        """``prompts``: the token ids that each reader of the row is shown, [P] int32."""
        content = content_of(row)
        self._identities.append(content if row.numbered else _hash(b"id", row.id.encode("utf-8", "surrogatepass")))
        self._contents.append(content)
        self._prompts.append(_hash(*(ids.astype("<i4").tobytes() for ids in prompts)))
        self._lines.append(row.line or 0)

    def made(self) -> Prints:
        words = (np.array(part, np.uint64) for part in (self._identities, self._contents, self._prompts))
        identities, contents, prompts = words
        return Prints(_distinct(identities), contents, prompts, np.array(self._lines, np.int64))


def content_of(row: Row) -> int:
    """A fingerprint of everything that is read of a row, without its id and its place."""
    values = (row.problem, row.answer, row.solution, row.teacher, row.tests)
    said = [text for message in row.context for text in message]
    if row.teacher_prompt:
        said += ["", *(text for message in row.teacher_prompt for text in message)]
    return _hash(*(b"" if value is None else b"=" + value.encode("utf-8", "surrogatepass") for value in (*values, *said)))


def _hash(*parts: bytes) -> int:
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return int.from_bytes(found.digest(), "little")


def _distinct(identities: np.ndarray) -> np.ndarray:
    """[N] uint64: each in turn of rows that have the same identity gets one of its own."""
    order = np.argsort(identities, kind="stable")
    sorted_ = identities[order]
    begins = np.flatnonzero(np.concatenate([[True], sorted_[1:] != sorted_[:-1]])[: len(order)])
    repeats = np.diff(np.append(begins, len(order)))
    occurrence = np.arange(len(order)) - np.repeat(begins, repeats)
    found = identities.copy()
    found[order] += occurrence.astype(np.uint64) * _GOLDEN
    return found
