"""Where a teacher ends its responses with another token than the student: ``teacher.end_tokens``.

To the teacher, each of the student's end tokens changes places with the teacher's own: in the responses that it reads, and in
the probabilities that it gives. All else then handles the student's ids alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from renio_pipeline.config import ConfigError
from renio_pipeline.models.info import ModelInfo
from renio_pipeline.types import EndTokens


def exchanged(ids: np.ndarray, pairs: EndTokens) -> np.ndarray:
    """Token ids of any shape with the two ids of each pair in each other's places. Its own inverse."""
    if not pairs:
        return ids
    found = ids.copy()
    for one, other in pairs:
        found[ids == one], found[ids == other] = other, one
    return found


def end_pairs(
    mapping: Mapping[str, str], student: ModelInfo, teacher: ModelInfo, stop_ids: Iterable[int], key: str
) -> EndTokens:
    """The ids of a mapping of tokens, from the student's end to the teacher's.

    Args:
        stop_ids: further tokens that end the student's responses.
        key: where the user writes the mapping.

    Raises:
        ConfigError: a token ends no response of its model, or has two partners.
    """
    ids = {token: i for i, token in student.tokens.items()}
    pairs: list[tuple[int, int]] = []
    for own, others in mapping.items():
        for token, who, ends in ((own, "student", student.ends | {*stop_ids}), (others, "teacher", teacher.ends)):
            if ids.get(token) not in ends:
                raise ConfigError(f"{key}: {token!r} ends no response of the {who}; what does: {_named(ends, student)}")
        pairs.append((ids[own], ids[others]))
    flat = [i for one, other in pairs for i in {one, other}]
    if len(flat) > len(set(flat)):
        twice = next(i for i in flat if flat.count(i) > 1)
        raise ConfigError(f"{key}: {student.tokens[twice]!r} is in two pairs, so it would stand for both others; leave one out")
    return tuple(pair for pair in pairs if pair[0] != pair[1])


def check_ends(
    student: ModelInfo, teacher: ModelInfo, stop_ids: Iterable[int], pairs: EndTokens = (), key: str = "teacher.model"
) -> None:
    """Compare where the two models end their responses. A student that never ends where its teacher would learns not to end.

    Args:
        stop_ids: further tokens that end the student's responses.
        pairs: see ``end_pairs``.

    Raises:
        ConfigError: no token ends the responses of both.
    """
    ours = student.ends | {*stop_ids}
    if not teacher.ends or ours & teacher.ends or pairs:
        return
    own, theirs = sorted(ours), sorted(teacher.ends)
    section = key.rpartition(".")[0]
    pair = f" or let one stand for the other: {section}.end_tokens={{{_token(own, student)}: {_token(theirs, student)}}};"
    raise ConfigError(
        f"{key}: the teacher {teacher.name!r} ends its responses with {_named(theirs, student)}, and the student's end with "
        f"{_named(own, student)}: the student would learn to write on. Choose a teacher that ends as the student does;"
        f"{pair if own else ''} or end the student's responses there too: "
        f"sampling.stop_token_ids=[{', '.join(map(str, theirs))}]"
    )


def _token(ids: list[int], student: ModelInfo) -> str:
    return repr(student.tokens.get(ids[0])) if ids else ""


def _named(ids: Collection[int], student: ModelInfo) -> str:
    return ", ".join(f"{student.tokens.get(i)!r} ({i})" for i in sorted(ids)) or "nothing"
