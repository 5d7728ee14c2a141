"""Checks every prompt once before a run: its length, and whether the models have all of its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from renio_pipeline.config import ConfigError
from renio_pipeline.data.prints import PrintsMaker
from renio_pipeline.data.problems import SHOWN, Problems, left_out
from renio_pipeline.data.prompts import Encoded
from renio_pipeline.data.rows import Chosen
from renio_pipeline.run_dir.data_record import Prints
from renio_pipeline.types import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The limits that a prompt must keep."""

    context: int  # tokens: the shortest context of the run's models
    model: str  # the name of the model with that context
    max_response_tokens: int
    max_prompt_tokens: int | None  # longer prompts are left out; None keeps all
    vocab_size: int  # rows of the smallest output head


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """The problems that are kept, with their fingerprints, and the length in tokens of the longest prompt that is read.

    That includes what a teacher is yet to write into it."""

    problems: Problems
    longest: int
    prints: Prints


def fitting(problems: Problems, prompts: Sequence[Encoded], bounds: Bounds, tokenizer: Any) -> Fitting:
    """Encode all rows once, in batches, and keep the indices of those that fit.

    Args:
        prompts: the prompts of the same rows, one sequence for each reader: the student, and a teacher with its own prompt.

    Raises:
        ConfigError: a prompt is empty, exceeds the context, or has a token that a model lacks; ``max_prompt_tokens`` leaves no
            row; or the template fails.
    """
    kept, prints = list[int](), PrintsMaker()
    too_long: list[str] = []
    count = 0
    more = [p.more for p in prompts]
    longest: tuple[int, int, Row] | None = None  # in all, of these yet to be written, and whose
    for index, same in enumerate(_together(prompts)):
        row, ids = same[0][0], max((ids for _, ids in same), key=len)
        if bounds.max_prompt_tokens is not None and len(ids) > bounds.max_prompt_tokens:
            count += 1
            too_long = [*too_long, f"{problems.rows.where(row)}: {len(ids)} tokens"][:SHOWN]
            continue
        kept.append(index)
        prints.add(row, [ids for _, ids in same])
        for _, each in same:
            check_not_empty(each, problems.rows.where(row))
            check_vocabulary(each, row, tokenizer, bounds.vocab_size)
        tokens, added = max((len(ids) + added, added) for (_, ids), added in zip(same, more, strict=True))
        if longest is None or tokens > longest[0]:
            longest = (tokens, added, row)
    tokens = check_length(longest[0], longest[2], bounds, added=longest[1]) if longest is not None else 0
    if not count:
        return Fitting(problems=problems, longest=tokens, prints=prints.made())
    if not kept:
        raise ConfigError(
            f"data.max_prompt_tokens: every prompt is longer than {bounds.max_prompt_tokens} tokens; first: "
            f"{'; '.join(too_long)}"
        )
    why = f"their prompts are longer than data.max_prompt_tokens ({bounds.max_prompt_tokens})"
    notes = (*problems.notes, left_out(count, count + len(kept), why, too_long))
    chosen = Problems(rows=Chosen(problems.rows, np.asarray(kept, np.int64)), notes=notes)
    return Fitting(problems=chosen, longest=tokens, prints=prints.made())


def _together(prompts: Sequence[Encoded]) -> Iterator[tuple[tuple[Row, np.ndarray], ...]]:
    """For each row in turn: the row with its ids, once for each reader."""
    for batches in zip(*(p.batches() for p in prompts), strict=True):
        yield from zip(*batches, strict=True)


def check_length(tokens: int, row: Row, bounds: Bounds, added: int = 0) -> int:
    """``tokens``, the length of a row's prompt. Raises ConfigError if it leaves too little context for a response.

    Args:
        added: tokens among them that a teacher is yet to write.
    """
    if tokens + bounds.max_response_tokens + 1 > bounds.context:
        analysis = f", {added} of them for method.reason_first" if added > 0 else ""
        lower = "max_response_tokens or method.reason_first.max_tokens" if added > 0 else "max_response_tokens"
        raise ConfigError(
            f"max_response_tokens: the prompt of row {row.id!r} has {tokens} tokens{analysis}; with max_response_tokens "
            f"({bounds.max_response_tokens}) and one more for scoring it exceeds the context of {bounds.model}, "
            f"{bounds.context}; lower {lower}, or leave such rows out with data.max_prompt_tokens"
        )
    return tokens


def check_not_empty(prompt_ids: np.ndarray, where: str) -> None:
    """Raises ConfigError if a prompt has no token, of which no engine can make a response."""
    if not len(prompt_ids):
        raise ConfigError(
            f"student: its chat template makes an empty prompt of {where}; mend the template, or the task's messages"
        )


def check_vocabulary(prompt_ids: np.ndarray, row: Row, tokenizer: Any, vocab_size: int) -> None:
    """Raises ConfigError if ``prompt_ids`` [P] has a token beyond the smallest output head: engines read past it silently."""
    if len(prompt_ids) and (largest := int(prompt_ids.max())) >= vocab_size:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise ConfigError(
            f"student, teacher.model: the prompt of row {row.id!r} has token {token!r}, id {largest}, but the smaller of "
            f"their output heads has {vocab_size} rows; choose a teacher whose vocabulary holds the student's"
        )


def check_end_token(tokenizer: Any, vocab_size: int) -> None:
    """Raises ConfigError if the student's end token is outside the output heads."""
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id >= vocab_size:
        raise ConfigError(
            f"student, teacher.model: the end token, id {tokenizer.eos_token_id}, is outside the {vocab_size} rows that "
            "their output heads share, so no response would ever end; choose another teacher"
        )
