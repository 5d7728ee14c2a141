"""A part's arrays, of which only what is asked for is read, and nothing is believed."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from renio_pipeline.recordings.manifest import regular
from renio_pipeline.recordings.parts import ARRAYS, DamagedError, Entry, first_line, not_a_logprob
from renio_pipeline.types import TopK


class Arrays:
    """A part's arrays, mapped into memory: what is asked for is read."""

    def __init__(self, table: Path, *, tokens: int, top_k: int, vocab_size: int) -> None:
        """
        Args:
            tokens: of all responses in the table.
            top_k: K of the recording, 0 without.

        Raises:
            DamagedError: the file is missing or cut, or its arrays are of another shape or type.
        """
        self.path = table.with_suffix(ARRAYS)
        self._vocab_size, self._top_k = vocab_size, top_k
        wide = {"top_k_ids": ("I32", [tokens, top_k + 1]), "top_k_logprobs": ("F32", [tokens, top_k + 1])} if top_k else {}
        expected: dict[str, tuple[str, list[int]]] = {
            "token_ids": ("I32", [tokens]),
            "student_logprobs": ("F32", [tokens]),
            "teacher_logprobs": ("F32", [tokens]),
            **wide,
        }
        for name, (dtype, shape) in expected.items():
            try:
                found = self._file.get_slice(name)
                has = (found.get_dtype(), list(found.get_shape()))
            except Exception as error:
                raise DamagedError(f"{self.path} cannot be read: {first_line(error)}") from None
            if has != (dtype, shape):
                raise DamagedError(f"{self.path}: {name} is {has[0]} {has[1]}, expected {dtype} {shape} as its table has it")

    @cached_property
    def _file(self) -> Any:
        from safetensors import safe_open

        regular(self.path)
        return safe_open(self.path, framework="np")

    def response(self, entry: Entry) -> tuple[np.ndarray, np.ndarray]:
        """[T] token ids and [T] log p_S by its writer. Raises DamagedError."""
        ids, logprobs = self._of(entry, "token_ids"), self._of(entry, "student_logprobs")
        self._check_ids(entry, ids)
        self._check_logprobs(entry, "student_logprobs", logprobs)
        return ids, logprobs

    def signals(self, entry: Entry, token_ids: np.ndarray, top_k: int) -> tuple[np.ndarray, TopK | None]:
        """[T] log p_T, and with ``top_k`` that many of its likeliest tokens. Raises DamagedError."""
        logprobs = self._of(entry, "teacher_logprobs")
        self._check_logprobs(entry, "teacher_logprobs", logprobs)
        if not top_k:
            return logprobs, None
        ids, values = self._of(entry, "top_k_ids")[:, : top_k + 1], self._of(entry, "top_k_logprobs")[:, : top_k + 1]
        self._check_ids(entry, ids)
        self._check_logprobs(entry, "top_k_logprobs", values)
        if not np.array_equal(ids[:, 0], token_ids):
            raise DamagedError(f"{self._where(entry)}: the first column of top_k_ids is not the response")
        return logprobs, TopK(token_ids=np.ascontiguousarray(ids), logprobs=np.ascontiguousarray(values))

    def _of(self, entry: Entry, name: str) -> np.ndarray:
        try:
            whole = self._file.get_slice(name)
            if not entry.tokens:  # safetensors takes no empty slice
                return np.zeros((0, *whole.get_shape()[1:]), np.int32 if name.endswith("ids") else np.float32)
            found: np.ndarray = whole[entry.start : entry.start + entry.tokens]
        except Exception as error:
            raise DamagedError(f"{self._where(entry)}: {name} cannot be read: {first_line(error)}") from None
        return found

    def _check_ids(self, entry: Entry, ids: np.ndarray) -> None:
        if ids.size and not (ids.min() >= 0 and ids.max() < self._vocab_size):
            raise DamagedError(f"{self._where(entry)}: has token ids outside the {self._vocab_size} entries of the vocabulary")

    def _check_logprobs(self, entry: Entry, name: str, values: np.ndarray) -> None:
        if (why := not_a_logprob(values)) is not None:
            raise DamagedError(f"{self._where(entry)}: {name} {why}")

    def _where(self, entry: Entry) -> str:
        return f"{self.path}: sample {entry.sample_id} (row {entry.row_id!r})"
