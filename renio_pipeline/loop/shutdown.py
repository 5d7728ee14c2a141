"""SIGTERM: the current step is completed, a checkpoint is written, and the process exits with code 143."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType

EXIT_CODE = 143  # 128 + SIGTERM, as a shell reports it


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

    def arm(self, grace_seconds: float, note: Callable[[str], object]) -> None:
        """Handle SIGTERM from now on. The handler calls ``note`` once."""

        def first(_signal: int, _frame: FrameType | None) -> None:
            self.requested, self.exit_code = True, EXIT_CODE
            signal.signal(signal.SIGTERM, leave)
            signal.signal(signal.SIGALRM, leave)
            signal.setitimer(signal.ITIMER_REAL, grace_seconds)
            note(f"SIGTERM: stopping with a checkpoint after this step; at once in {grace_seconds:g} s or at a second SIGTERM")

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
