"""Imports of large packages that the garbage collector does not examine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_imports() -> Iterator[None]:
    """Import within it what stays for as long as the process does.

    vLLM, torch, transformers and DeepSpeed create a few million objects at import, and none of them is ever garbage. The
    collector would examine them again and again while there are more and more of them, and then at each full collection, of
    which vLLM asks for five while it starts: together a quarter of the time that an engine takes to start on a CPU.

    Where everything was imported before, nothing is kept: a process that builds one engine after another, as tests do, would
    keep the cycles of each one before, and their tensors.
    """
    enabled, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
        if enabled:
            gc.enable()
