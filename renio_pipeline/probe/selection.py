"""From which responses a teacher goes on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from renio_pipeline.probe.continuations import Begun
from renio_pipeline.probe.responses import Response

HEAVIEST, OTHERS, RIGHT = "heaviest wrong", "other wrong", "right"
WRONG = (HEAVIEST, OTHERS)


def choose(responses: Sequence[Response], each: int, *, seed: int) -> dict[str, list[Response]]:
    """Up to ``each`` responses of each group, all of them with a verdict and a pivotal token.

    The wrong ones that weigh most are what ReNIO's weights emphasise. The others are drawn at random from the rest of the wrong
    ones, and from the right ones, whose pivotal tokens are false alarms.
    """
    rng = np.random.default_rng(seed)
    pivotal = [r for r in responses if r.verdict is not None and r.first is not None]
    wrong = sorted((r for r in pivotal if r.wrong), key=lambda r: (-r.raw, r.prompt.sample_id))
    right = [r for r in pivotal if not r.wrong]
    return {HEAVIEST: wrong[:each], OTHERS: _drawn(wrong[each:], each, rng), RIGHT: _drawn(right, each, rng)}


def _drawn(responses: Sequence[Response], count: int, rng: np.random.Generator) -> list[Response]:
    places = rng.permutation(len(responses))[:count]
    return [responses[i] for i in sorted(places)]


def around_first(response: Response) -> tuple[Begun, Begun]:
    """The response up to its first pivotal token, without and with it. It must have one."""
    first = response.first
    assert first is not None
    ends = first + 1 == len(response.token_ids) and response.stop_reason == "stop"
    return (
        Begun(prompt=response.prompt, ids=response.token_ids[:first]),
        Begun(prompt=response.prompt, ids=response.token_ids[: first + 1], ended=ends),
    )
