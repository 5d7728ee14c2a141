"""How a failed actor or engine shows itself to those who call it."""

from __future__ import annotations

from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

# What Ray raises when an actor is gone. Not all of it derives from RayActorError: when the memory monitor kills a process, the
# calls that were in flight on it fail with OutOfMemoryError.
GONE = (RayActorError, OutOfMemoryError, NodeDiedError, WorkerCrashedError)


class EngineFailed(RuntimeError):
    """The engine no longer works, or its weights are incomplete. The request is not at fault. The message names the cause."""
