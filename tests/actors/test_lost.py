"""Which errors say that a worker is gone, and which only that it refused."""

from __future__ import annotations

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    NodeDiedError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)

from actors.errors import EngineFailed
from actors.pools.waiting import WorkerLost
from actors.pools.worker import is_loss
from actors.weight_sync.client import why_lost

GONE = [
    ActorDiedError(),
    ActorUnavailableError("busy", None),
    OutOfMemoryError("5 workers were killed"),
    NodeDiedError("gone"),
    WorkerCrashedError(),
    EngineFailed("out of blocks"),
]


def in_a_task(error: Exception) -> Exception:
    """As it comes from an actor whose method raised it."""
    made: Exception = RayTaskError("method", "traceback", error).as_instanceof_cause()
    return made


@pytest.mark.parametrize("error", [*GONE, WorkerLost("no answer"), GetTimeoutError()], ids=lambda e: type(e).__name__)
def test_a_worker_that_is_gone_is_known_by_its_error_also_inside_a_task(error: Exception) -> None:
    assert is_loss(error)
    assert is_loss(in_a_task(error))


@pytest.mark.parametrize("error", [*GONE, TimeoutError("too long")], ids=lambda e: type(e).__name__)
def test_so_is_a_receiver_of_weights(error: Exception) -> None:
    assert why_lost(error) is not None


@pytest.mark.parametrize("error", [ValueError("refused"), RuntimeError("no such layer")], ids=lambda e: type(e).__name__)
def test_a_refusal_is_no_loss(error: Exception) -> None:
    assert not is_loss(error)
    assert not is_loss(in_a_task(error))
    assert why_lost(error) is None
