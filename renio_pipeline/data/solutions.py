"""A row's solution as a response: what ``method.type: sft`` and ``data.off_policy.source: solution`` train on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from renio_pipeline.config import ConfigError
from renio_pipeline.types import Row, StopReason

OFF_POLICY = "data.off_policy"  # where solutions stand beside the responses of the student


class Solutions:
    """Encodes solutions with the student's tokenizer, ended by its end token, as a student that stops by itself ends."""

    def __init__(self, tokenizer: Any, *, most: int, vocab_size: int, key: str = OFF_POLICY) -> None:
        """
        Args:
            most: tokens of the longest response; a longer solution is cut, and then has no end token.
            vocab_size: entries that all models have.
            key: what asks for solutions, for errors.

        Raises:
            ConfigError: the tokenizer has no end token.
        """
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                f"{key}: the student's tokenizer has no end token (eos_token), so a student that learns from solutions "
                f"would never learn to stop; give the tokenizer one{_or_by_teacher(key)}"
            )
        self._tokenizer, self._most, self._vocab_size, self._key = tokenizer, most, vocab_size, key

    def response(self, row: Row) -> tuple[np.ndarray, StopReason]:
        """A row's solution, [T] int32, and whether it is whole.

        Raises:
            ConfigError: it has a token that a model lacks.
        """
        assert row.solution is not None, "rows without a solution are refused before a run starts"
        ids = self._tokenizer(row.solution, add_special_tokens=False, verbose=False)["input_ids"]
        whole = [*ids, self._tokenizer.eos_token_id]
        kept = np.asarray(whole[: self._most], np.int32)
        if (largest := int(kept.max())) >= self._vocab_size:
            other = ", or choose a teacher whose vocabulary holds it" if self._key == OFF_POLICY else ""
            raise ConfigError(
                f"{self._key}: the solution of row {row.id!r} has token id {largest}, but the smallest of the models' output "
                f"heads has {self._vocab_size} rows; leave that row out{other}"
            )
        return kept, "stop" if len(whole) <= self._most else "length"

    def check(self, rows: Iterable[Row]) -> None:
        """Raises ConfigError, as ``response`` does, if a model lacks a token of a row's solution.

        Solutions are encoded only where the tokenizer has tokens beyond the models' output heads, which is rare.
        """
        if max(self._tokenizer.get_vocab().values()) >= self._vocab_size:
            for row in rows:
                self.response(row)


def _or_by_teacher(key: str) -> str:
    return ", or set data.off_policy.source=teacher" if key == OFF_POLICY else ""
