"""From a sample's reference to what the teachers sent of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from renio_pipeline.types import Aligned, Mixture, TrainSample

Table = Mapping[int, Any]  # a Payload by sample id


def sources(payload: Any) -> Iterator[Any]:
    """Every reference to a Table in a sample's ``payload``; none where that is None."""
    if isinstance(payload, Mixture):
        for part in payload.parts:
            yield from sources(part)
    elif isinstance(payload, Aligned):
        yield from sources(payload.part)
    elif payload is not None:
        yield payload


def by_sample(samples: Sequence[TrainSample], read: Callable[[Any], Table]) -> dict[int, Any]:
    """What the teachers sent of each sample: a Payload, a Mixture or an Aligned. ``read``: from a reference to its Table."""
    return {s.sample_id: _found(s.payload, s.sample_id, read) for s in samples if s.payload is not None}


def _found(payload: Any, sample_id: int, read: Callable[[Any], Table]) -> Any:
    if isinstance(payload, Mixture):
        return replace(payload, parts=tuple(_found(part, sample_id, read) for part in payload.parts))
    if isinstance(payload, Aligned):
        return replace(payload, part=_found(payload.part, sample_id, read))
    return read(payload)[sample_id]


def split(payloads: Sequence[Any]) -> tuple[list[list[Any]], tuple[float, ...]]:
    """The samples' payloads teacher by teacher, and the teachers' weights: 1 where there is no Mixture.

    ``payloads``: of the samples of one run, so that all are mixtures of the same teachers, or none is one.
    """
    mixtures = [as_mixture(p) for p in payloads]
    (weights,) = {m.weights for m in mixtures}
    return [list(column) for column in zip(*(m.parts for m in mixtures), strict=True)], weights


def as_mixture(payload: Any) -> Mixture:
    """One teacher's payload as the mixture of it alone; a Mixture as it is."""
    return payload if isinstance(payload, Mixture) else Mixture(parts=(payload,), weights=(1.0,))
