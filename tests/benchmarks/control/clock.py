"""A clock that skips the time in which nobody works."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
REAL = time.perf_counter  # the time that passes outside
_CLOCKS = ("time", "monotonic", "perf_counter")


class _Selector(selectors.DefaultSelector):
    """Skips the wait for the next timer, unless a thread works."""

    skipped, working = 0.0, 0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or self.working:
            return super().select(timeout)
        found = super().select(0)
        if not found and timeout > 0:
            self.skipped += timeout
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, selector: _Selector) -> None:
        super().__init__(selector)
        self._skips = selector

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        found = super().run_in_executor(executor, func, *args)
        self._skips.working += 1
        found.add_done_callback(self._worked)
        return found

    def _worked(self, _: asyncio.Future[Any]) -> None:
        self._skips.working -= 1


@contextmanager
def _shifted(selector: _Selector) -> Iterator[None]:
    """``time.time`` and the like of this process go on by what was skipped."""
    real = {name: getattr(time, name) for name in _CLOCKS}
    try:
        for name, clock in real.items():
            setattr(time, name, lambda clock=clock: clock() + selector.skipped)
        yield
    finally:
        for name, clock in real.items():
            setattr(time, name, clock)


def run_at_speed(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` under such a clock."""
    selector = _Selector()
    with _shifted(selector), asyncio.Runner(loop_factory=lambda: _Loop(selector)) as runner:
        return runner.run(main)
