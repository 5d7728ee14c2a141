"""Why a worker's constructor failed: what Ray has of it is one text, with the traceback of its process."""

from __future__ import annotations

import re

from ray.exceptions import ActorDiedError

from renio_pipeline.config import ConfigError

_FRAME = re.compile(r'^  File ".*", line \d+.*\n(?:    .*\n)*', re.MULTILINE)
_RAISED = re.compile(r"(?P<type>[\w.]+)(?:: (?P<text>.*))?", re.DOTALL)


class NotStartedError(RuntimeError):
    """A worker did not start, and the next in its place would not either. The message has the pool and the cause."""


def not_started(pool: str, slot: int, error: ActorDiedError) -> Exception:
    """The error that ends the run: a ConfigError if that is what the constructor raised, as for a fault that a node has."""
    raised = constructor_error(error)
    found = _RAISED.fullmatch(raised)
    if found and found["type"] == f"{ConfigError.__module__}.{ConfigError.__qualname__}":
        return ConfigError(found["text"] or "")
    return NotStartedError(f"pool {pool}: replica {slot} did not start: {raised}")


def constructor_error(error: ActorDiedError) -> str:
    """What the constructor raised, as the end of a traceback has it: the type and the message."""
    text, end = str(error), 0
    for frame in _FRAME.finditer(text):
        end = frame.end()
    return text[end:].strip() or "no reason given"
