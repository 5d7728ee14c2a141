"""Bounds what a chat template may compute: a model's folder comes from elsewhere, and a template can loop for days.

transformers renders templates in Jinja's sandbox, which keeps them from files, processes and Python's internals, but not from
computing for ever. The bound is of processor time, so that a busy machine refuses nothing that an idle one takes.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# For one prompt; a template that people write takes a millisecond.
CPU_SECONDS = 20.0
_POLL_SECONDS = 0.5


class TemplateTooSlowError(Exception):
    """A rendering took more processor time than it may."""

    def __str__(self) -> str:
        return f"it computed for more than {CPU_SECONDS:g} s of processor time"


class _Rendering:
    def __init__(self, limit: float) -> None:
        self.limit = limit  # the thread's own processor time at which it is cut off, in seconds
        self.cut_off = threading.Event()


_renderings: dict[int, _Rendering] = {}  # by thread; whoever pops an entry, its thread or the watch, decides how it ended


@contextmanager
def bounded() -> Iterator[None]:
    """Within the context, Python code of this thread that computes for too long raises TemplateTooSlowError.

    A single call into C, such as the making of one huge string, is not interrupted.
    """
    _watch()
    me, rendering = threading.get_ident(), _Rendering(time.thread_time() + CPU_SECONDS)
    _renderings[me] = rendering
    try:
        yield
    finally:
        if _renderings.pop(me, None) is None:
            rendering.cut_off.wait()
            _raise_in(me, None)  # if it has not been raised yet, it must not be raised after the context


@cache
def _watch() -> None:
    threading.Thread(target=_look, name="template-time", daemon=True).start()


def _look() -> None:
    while True:
        time.sleep(_POLL_SECONDS)
        for thread, rendering in list(_renderings.items()):
            if _computed(thread) > rendering.limit and _renderings.pop(thread, None) is rendering:
                _raise_in(thread, TemplateTooSlowError)
                rendering.cut_off.set()


def _computed(thread: int) -> float:
    """The processor time of a thread of this process, in seconds. A thread that is rendering has not ended."""
    return time.clock_gettime(time.pthread_getcpuclockid(thread))


def _raise_in(thread: int, error: type[Exception] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error and ctypes.py_object(error))
