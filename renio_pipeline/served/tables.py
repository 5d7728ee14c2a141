"""From the entries that a server returns to a payload.

Shapes: T response tokens, K the likeliest tokens of each, V vocabulary entries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from renio_pipeline.served.faults import UnusableAnswerError
from renio_pipeline.types import TopK

NOTHING = -9999.0  # nats: no probability. vLLM's servers write it where the logarithm is minus infinity

Entry = tuple[int, float]  # a token id and its log-probability


def table(own: Sequence[Entry], likeliest: Sequence[Sequence[Entry]], k: int, vocab_size: int) -> TopK:
    """[T, K + 1]: in column 0 the sampled tokens, then the likeliest in falling order.

    A server's model may have output rows beyond V, which the student does not have. Where one is among the likeliest, another
    token without probability takes its place, so that its mass counts as that of the tail.

    Args:
        own: the sampled token of each position.
        likeliest: at least K entries of each position in any order, of which one may be the sampled token.

    Raises:
        UnusableAnswerError: a position has fewer than K entries.
    """
    ids = np.empty((len(own), k + 1), np.int32)
    logprobs = np.empty((len(own), k + 1), np.float32)
    for row, (sampled, entries) in enumerate(zip(own, likeliest, strict=True)):
        best = sorted(entries, key=lambda entry: -entry[1])[:k]
        if len(best) < k:
            raise UnusableAnswerError(f"{len(best)} of the {k} likeliest tokens were returned")
        known = [entry for entry in best if entry[0] < vocab_size]
        known += [(unused, NOTHING) for unused in _unused({sampled[0], *(i for i, _ in known)}, k - len(known))]
        ids[row], logprobs[row] = zip(sampled, *known, strict=True)
    return TopK(token_ids=ids, logprobs=logprobs)


def _unused(taken: set[int], count: int) -> list[int]:
    return [i for i in range(len(taken) + count) if i not in taken][:count]
