"""SIGTERM: the step under way ends, a checkpoint is written, and the process exits with 143."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType

EXIT_CODE = 143  # 128 + SIGTERM, as a shell reports it


class Stop:
    """Whether the run was asked to end. Armed, the first SIGTERM asks; the second, or the end of the grace, ends at once."""

    def __init__(self) -> None:
        self.requested = False
        self.exit_code = EXIT_CODE

    def request(self) -> None:
        """As SIGTERM does, but by the run's own user, and without a grace: the run has done what it was asked for."""
        self.requested, self.exit_code = True, 0

    def arm(self, grace_seconds: float, note: Callable[[str], object]) -> None:
        """Handle SIGTERM from here on. ``note`` is called by the handler, once."""

        def first(_signal: int, _frame: FrameType | None) -> None:
            self.requested, self.exit_code = True, EXIT_CODE
            signal.signal(signal.SIGTERM, leave)
            signal.signal(signal.SIGALRM, leave)
            signal.setitimer(signal.ITIMER_REAL, grace_seconds)
            note(f"SIGTERM: ends with a checkpoint after this step; at once in {grace_seconds:g} s, or at a second SIGTERM")

        signal.signal(signal.SIGTERM, first if grace_seconds else leave)

    def disarm(self) -> None:
        """The run is done: the grace no longer ends."""
        signal.setitimer(signal.ITIMER_REAL, 0)


def leave(*_: object) -> None:
    """A signal's handler: unwind from wherever the driver is, so that Ray is shut down on the way."""
    end(EXIT_CODE)


def end(code: int) -> None:
    """Unwind, and exit with ``code``."""
    signal.setitimer(signal.ITIMER_REAL, 0)  # a grace that ends now must not break into the unwinding
    sys.exit(code)
