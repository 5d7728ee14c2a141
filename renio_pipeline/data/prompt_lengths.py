"""One look at every prompt before a run: its length, and whether the models know its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from renio_pipeline.config import ConfigError
from renio_pipeline.data.problems import SHOWN, Problems, left_out
from renio_pipeline.data.prompts import Encoded
from renio_pipeline.data.rows import Chosen
from renio_pipeline.types import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a prompt must keep to."""

    context: int  # tokens of the model that has the fewest
    model: str  # its name
    max_response_tokens: int
    max_prompt_tokens: int | None  # longer ones are left out; None: all stay
    vocab_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """The problems that stay, and the tokens of the longest prompt that student or teacher is shown for one."""

    problems: Problems
    longest: int


def fitting(problems: Problems, prompts: Sequence[Encoded], bounds: Bounds, tokenizer: Any) -> Fitting:
    """Look at the rows once, in batches, and keep of them only which ones fit.

    Args:
        prompts: of the same rows, each way that they are asked: for the student, and for a teacher with a prompt of its own.

    Raises:
        ConfigError: a prompt exceeds the context or has a token that a model has not, or ``max_prompt_tokens`` leaves none.
    """
    kept: list[int] = []
    too_long: list[str] = []
    count = 0
    longest: tuple[np.ndarray, Row] | None = None
    for index, same in enumerate(_together(prompts)):
        row, ids = same[0][0], max((ids for _, ids in same), key=len)
        if bounds.max_prompt_tokens is not None and len(ids) > bounds.max_prompt_tokens:
            count += 1
            too_long = [*too_long, f"{problems.rows.where(row)}: {len(ids)} tokens"][:SHOWN]
            continue
        kept.append(index)
        for _, each in same:
            check_vocabulary(each, row, tokenizer, bounds.vocab_size)
        if longest is None or len(ids) > len(longest[0]):
            longest = (ids, row)
    tokens = check_length(*longest, bounds) if longest is not None else 0
    if not count:
        return Fitting(problems=problems, longest=tokens)
    if not kept:
        raise ConfigError(
            f"data.max_prompt_tokens: every prompt is longer than {bounds.max_prompt_tokens} tokens; first: "
            f"{'; '.join(too_long)}"
        )
    why = f"their prompts are longer than data.max_prompt_tokens ({bounds.max_prompt_tokens})"
    notes = (*problems.notes, left_out(count, count + len(kept), why, too_long))
    chosen = Problems(rows=Chosen(problems.rows, np.asarray(kept, np.int64)), notes=notes)
    return Fitting(problems=chosen, longest=tokens)


def _together(prompts: Sequence[Encoded]) -> Iterator[tuple[tuple[Row, np.ndarray], ...]]:
    """Of each row in turn, the row and its ids each way that it is asked."""
    for batches in zip(*(p.batches() for p in prompts), strict=True):
        yield from zip(*batches, strict=True)


def check_length(prompt_ids: np.ndarray, row: Row, bounds: Bounds) -> int:
    """The prompt's tokens. Raises ConfigError if it leaves too little of the context for a response."""
    tokens = len(prompt_ids)
    if tokens + bounds.max_response_tokens + 1 > bounds.context:
        raise ConfigError(
            f"max_response_tokens: the prompt of row {row.id!r} has {tokens} tokens; with max_response_tokens "
            f"({bounds.max_response_tokens}) and one more for scoring it exceeds the context of {bounds.model}, "
            f"{bounds.context}; lower max_response_tokens, or leave such rows out by data.max_prompt_tokens"
        )
    return tokens


def check_vocabulary(prompt_ids: np.ndarray, row: Row, tokenizer: Any, vocab_size: int) -> None:
    """Raises ConfigError for a token that the smallest output head does not have: engines read past its end unnoticed."""
    if len(prompt_ids) and (largest := int(prompt_ids.max())) >= vocab_size:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise ConfigError(
            f"student, teacher.model: the prompt of row {row.id!r} has token {token!r}, id {largest}, but the smaller of "
            f"their output heads has {vocab_size} rows; choose a teacher whose vocabulary holds the student's"
        )


def check_end_token(tokenizer: Any, vocab_size: int) -> None:
    """Raises ConfigError if the student's end token lies outside of the output heads."""
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id >= vocab_size:
        raise ConfigError(
            f"student, teacher.model: the end token, id {tokenizer.eos_token_id}, lies outside of the {vocab_size} rows that "
            "their output heads share, so that no response would ever end; choose another teacher"
        )
