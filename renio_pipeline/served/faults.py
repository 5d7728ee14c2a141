"""What can go wrong between a client and a server, by what follows from it."""

from __future__ import annotations

MOST_CUTS = 4  # times that a server ended with a request, or did not answer it in time


class ServerAwayError(Exception):
    """The server cannot be used now. Its requests go elsewhere, and it is asked again later."""

    def __init__(self, reason: str, *, cut: bool = False, late: bool = False, status: int = 0) -> None:
        """``cut``: the connection ended with the request at the server. ``late``: it did not answer in time. ``status``: of
        HTTP; 0: there was no answer."""
        super().__init__(reason)
        self.cut, self.late, self.status = cut, late, status


class ServerBusyError(Exception):
    """The server asks for patience: the request is sent again, there or elsewhere."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        """``seconds``: how long the server says to wait; None: it does not say."""
        super().__init__(reason)
        self.seconds = seconds


class UnusableAnswerError(Exception):
    """The server failed on this request, or its answer does not fit it."""


# What reading an answer raises, of whatever shape it is.
UNUSABLE = (UnusableAnswerError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


class RequestRefusedError(RuntimeError):
    """The servers refuse the request itself, wherever it is sent. The text has their reason."""


class UnsuitableServerError(Exception):
    """The server works, and must not teach. The text says why, and what to change."""


class KillsServersError(RuntimeError):
    """A request with which servers end or stop to answer, each time that it is sent to one."""
