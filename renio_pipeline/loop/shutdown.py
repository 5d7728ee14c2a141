"""SIGTERM: the current step is completed, a checkpoint is written, and the process exits with code 143."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

EXIT_CODE = 143  # 128 + SIGTERM, as a shell reports it
LOOK_SECONDS = 0.05


class Stop:
    """Whether the run was asked to stop.

    Once armed, the first SIGTERM asks; a second one, or the end of the grace period, exits at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self.exit_code = EXIT_CODE
        self._waits = True  # for the step under way

    def request(self) -> None:
        """Stop after the current step with exit code 0 and no grace period, as ``renio stop`` asks."""
        self.requested, self.exit_code = True, 0

    async def unless_requested(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Await what a stop need not wait for: nothing would be kept of it. A stop that comes before or meanwhile exits."""
        task, self._waits = asyncio.create_task(waiting), False
        try:
            while not task.done() and not self.requested:
                await asyncio.wait({task}, timeout=LOOK_SECONDS)
            if self.requested:
                end(self.exit_code)
            await task
        finally:
            self._waits = True
            task.cancel()

    def arm(self, grace_seconds: float, note: Callable[[str], object]) -> None:
        """Handle SIGTERM from now on. The handler calls ``note`` once."""

        def first(_signal: int, _frame: FrameType | None) -> None:
            self.requested, self.exit_code = True, EXIT_CODE
            signal.signal(signal.SIGTERM, leave)
            signal.signal(signal.SIGALRM, leave)
            signal.setitimer(signal.ITIMER_REAL, grace_seconds)
            after = f"with a checkpoint after this step; at once in {grace_seconds:g} s or at a second SIGTERM"
            note(f"SIGTERM: stopping {after if self._waits else 'at once, at the checkpoint from which the ranks start again'}")

        signal.signal(signal.SIGTERM, first if grace_seconds else leave)

    def disarm(self) -> None:
        """The run is complete: cancel the grace period."""
        signal.setitimer(signal.ITIMER_REAL, 0)


def leave(*_: object) -> None:
    """Signal handler: unwind from wherever the driver is, so that Ray is shut down on the way."""
    end(EXIT_CODE)


def end(code: int) -> None:
    """Unwind, and exit with ``code``."""
    signal.setitimer(signal.ITIMER_REAL, 0)  # the end of the grace period must not interrupt the unwinding
    sys.exit(code)
