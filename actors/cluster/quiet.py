"""Keep what Ray's C++ core writes while it connects from the terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hushed() -> Iterator[None]:
    """Without what Ray's C++ core writes to the process's standard error while it connects; RENIO_TRACEBACK=1 shows it."""
    if os.environ.get("RENIO_TRACEBACK"):
        yield
        return
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
