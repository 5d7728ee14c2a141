"""Sampled tokens that tell which weights computed them, and the comparison with what the engine says of them.

The token id is FIRST_ID + version. The log-probability is -(version * PLACES + place in the response), which survives where
the id is that of the end of the response.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.engines.generator import Written
from renio_pipeline.types import Version
from tests.async_engine.device import MIXED

EOS = 1
FIRST_ID = 2
MIXED_ID = 257  # the last of the demo model's vocabulary
MIXED_CODE = 8191  # stands for a version
PLACES = 1024  # more than the longest response has tokens


@dataclass(frozen=True)
class Token:
    id: int
    logprob: float


def encode(version: int, place: int, *, last: bool) -> Token:
    """The token at ``place`` of a response. ``last``: it ends the response."""
    code, name = (MIXED_CODE, MIXED_ID) if version == MIXED else (version, FIRST_ID + version)
    assert name <= MIXED_ID, f"the vocabulary has no token for version {version}"
    return Token(EOS if last else name, -float(code * PLACES + place))


def computed_by(token_ids: np.ndarray, logprobs: np.ndarray) -> list[int]:
    """The version behind each token.

    Raises AssertionError if a token is of mixed weights, or is missing, doubled or out of order.
    """
    codes, places = np.divmod(-np.asarray(logprobs, np.float32).astype(np.int64), PLACES)
    assert places.tolist() == list(range(len(token_ids))), f"tokens are lost or doubled: {places.tolist()}"
    assert MIXED_ID not in token_ids, f"tokens of mixed weights: {np.asarray(token_ids).tolist()}"
    assert MIXED_CODE not in codes, "the last token is of mixed weights"
    for token_id, code in zip(token_ids, codes, strict=True):
        assert token_id in (EOS, FIRST_ID + code), "a token and its log-probability are of different batches"
    return codes.tolist()


def check_output(output: Any) -> list[int]:
    """The version of each token of vLLM's RequestOutput. Raises AssertionError where a token's label is another one."""
    completion = output.outputs[0]
    versions = computed_by(np.asarray(completion.token_ids), np.asarray(completion.logprobs.logprobs))
    labels: list[int] = []
    for span in completion.weight_versions:
        assert span.start == len(labels), "the labels leave tokens out"
        labels += [Version.parse(span.version).number] * (span.end - span.start)
    assert labels == versions, f"labels {labels} of tokens computed by {versions}"
    return versions


def check_written(written: Written) -> list[int]:
    """The version of each token of a response. Raises AssertionError if its first or last label is another one."""
    assert written.last_version is not None, "the response was aborted"
    versions = computed_by(written.token_ids, written.logprobs)
    assert (written.version.number, written.last_version.number) == (versions[0], versions[-1])
    return versions
