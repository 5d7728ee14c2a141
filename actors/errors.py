"""How Ray says that an actor is gone: not all of it is an actor's error."""

from __future__ import annotations

from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

# Of an actor whose process the memory monitor has killed, calls that were under way fail with OutOfMemoryError.
GONE = (RayActorError, OutOfMemoryError, NodeDiedError, WorkerCrashedError)
