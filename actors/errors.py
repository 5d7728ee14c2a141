"""How a failed actor or engine shows itself to those who call it, and how that is said to the user."""

from __future__ import annotations

import re

from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

# What Ray raises when an actor is gone. Not all of it derives from RayActorError: when the memory monitor kills a process, the
# calls that were in flight on it fail with OutOfMemoryError.
GONE = (RayActorError, OutOfMemoryError, NodeDiedError, WorkerCrashedError)
_NODE_DIED = re.compile(r"node (?:has|had) died|node (?:was|is) (?:dead|terminated)|node failure", re.IGNORECASE)
_ADDRESS = re.compile(r"^\tip: (.+)$", re.MULTILINE)


class EngineFailed(RuntimeError):
    """The engine no longer works, or its weights are incomplete. The request is not at fault. The message names the cause."""


def plain_reason(error: BaseException) -> str:
    """One line that says in plain words why a worker is lost. Ray's own texts have many, with its ids and its gRPC's.

    >>> plain_reason(WorkerCrashedError())
    'its process died'
    """
    cause = getattr(error, "cause", None)
    if isinstance(error, RayTaskError) and isinstance(cause, BaseException):
        error = cause
    if not isinstance(error, GONE):
        return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    text = str(error)
    if isinstance(error, OutOfMemoryError):
        return "its process was killed because its node ran out of memory"
    if isinstance(error, ActorUnavailableError):
        return "its process or its node cannot be reached"
    found = _ADDRESS.search(text)
    node = f" {found[1]}" if found else ""
    if isinstance(error, NodeDiedError) or _NODE_DIED.search(text):
        return f"its node{node} is lost"
    if "ray.kill" in text:
        return "it was killed"
    return "its process died" + (f" (on node{node})" if node else "")  # without its id: equal reasons are counted together
