"""SIGTERM: the current step is completed, a checkpoint is written, and the process exits with code 143.

While ranks start again there is no step to complete: the run ends at once, with the checkpoint that it has."""

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

    def request(self) -> None:
        """Stop after the current step with exit code 0 and no grace period, as ``renio stop`` asks."""
        self.requested, self.exit_code = True, 0

    async def unless_requested(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Await what a stop need not wait for: nothing would be kept of it. A stop that comes before or meanwhile exits."""
        task = asyncio.create_task(waiting)
        try:
            while not task.done() and not self.requested:
                await asyncio.wait({task}, timeout=LOOK_SECONDS)
            if self.requested:
                end(self.exit_code)
            await task
        finally:
            task.cancel()

    def arm(self, grace_seconds: float, note: Callable[[str], object]) -> None:
        """Handle SIGTERM from now on. The handler calls ``note`` once."""

        def first(_signal: int, _frame: FrameType | None) -> None:
            self.requested, self.exit_code = True, EXIT_CODE
            signal.signal(signal.SIGTERM, leave)
            signal.signal(signal.SIGALRM, leave)
            signal.setitimer(signal.ITIMER_REAL, grace_seconds)
            note(
                "SIGTERM: stopping after this step, with a checkpoint, or at once with the last checkpoint while ranks start "
                f"again; at the latest in {grace_seconds:g} s or at a second SIGTERM"
            )

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
