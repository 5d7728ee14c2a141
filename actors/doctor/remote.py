"""Send the probes to nodes, and wait no longer than a deadline for what they say."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TypeVar

import ray

import actors.doctor

K = TypeVar("K")


def by_value() -> None:
    """Have Ray send the code of this package itself, so that nodes need not have it."""
    ray.cloudpickle.register_pickle_by_value(actors.doctor)


def pinned(node_id: str) -> dict[str, Any]:
    """Ray options of what must run on this node, whatever else runs there."""
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
    return {"num_cpus": 0, "scheduling_strategy": strategy}


def gather(asked: Mapping[K, Any], seconds: float) -> dict[K, Any]:
    """What each reference gives; for one that fails, or is not there within ``seconds``, an Exception that says so."""
    references = list(asked.values())
    if not references:
        return {}
    done = {*ray.wait(references, num_returns=len(references), timeout=seconds)[0]}
    found: dict[K, Any] = {}
    for key, reference in asked.items():
        if reference not in done:
            found[key] = TimeoutError(f"no answer within {seconds:.0f} s")
            continue
        try:
            found[key] = ray.get(reference)
        except ray.exceptions.RayError as error:
            found[key] = error
    return found


def reason(error: BaseException) -> str:
    """One line: of a remote failure its cause, without Ray's traceback."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [""]
    text = lines[0] if len(lines) == 1 or cause is not error else lines[-1]
    return text if isinstance(cause, TimeoutError) and cause is error else f"{type(cause).__name__}: {text}"[:300]


def clock(examiner: Any, seconds: float, tries: int = 3) -> tuple[float, float]:
    """(skew, half of the round trip) of a node's clock against this process's, in seconds, from the fastest answer.

    Raises:
        GetTimeoutError: the examiner did not answer within ``seconds``.
    """
    found = []
    for _ in range(tries):
        before, start = time.time(), time.perf_counter()
        there = ray.get(examiner.time.remote(), timeout=seconds)
        half = (time.perf_counter() - start) / 2
        found.append((there - before - half, half))
    return min(found, key=lambda each: each[1])
