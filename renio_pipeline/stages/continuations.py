"""Requests for several texts as requests for one each, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from renio_pipeline.stages.seeds import sample_seed
from renio_pipeline.types import Continuation, ContinuationRequest


def single_requests(requests: Sequence[ContinuationRequest]) -> list[ContinuationRequest]:
    """A request for each continuation, in order, with a seed of its own: who writes it, and beside what, changes nothing."""
    return [
        replace(request, n=1, seed=sample_seed(request.seed, i), teacher=None) for request in requests for i in range(request.n)
    ]


def by_request(requests: Sequence[ContinuationRequest], found: Sequence[Continuation]) -> list[list[Continuation]]:
    """The continuations of each request. ``found``: in the order of ``single_requests``."""
    left = iter(found)
    return [[next(left) for _ in range(request.n)] for request in requests]
