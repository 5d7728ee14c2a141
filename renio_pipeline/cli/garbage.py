"""Python's garbage collector, in a process that has imported much and now runs for days."""

from __future__ import annotations

import gc


def spare_all_so_far() -> None:
    """Whatever there is stays until the end: let no later collection look at it again.

    Modules and tokenizers make up nearly all of a driver's objects. Looking through them stops its event loop for a tenth of a
    second, every thousand samples or so.
    """
    gc.collect()
    gc.freeze()
