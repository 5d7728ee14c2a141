"""A run's ``log.txt``: every note with its time, every traceback, and what libraries print."""

from __future__ import annotations

import logging
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from renio_pipeline.run_dir.fence import NO_FENCE, Fence, LeaseLostError
from renio_pipeline.visible import visible

PACKAGES = ("renio_pipeline", "actors")  # whose loggers write to the log
PREFIX = "log: "  # of the note on an error that says where the log is


class RunLog:
    """Usage: ``with RunLog(path) as log: log.note(...)``. An error that leaves the context is logged with its traceback.

    The file is appended to, so that a resumed run continues it. Each entry is handed to the operating system before ``note``
    returns. Lines after an entry's first are indented. A run that has lost its directory's lease logs nothing more.
    """

    def __init__(self, path: Path, fence: Fence = NO_FENCE) -> None:
        self.path, self._fence = path, fence
        self._handler = _Handler(self)

    def note(self, text: str) -> None:
        """Append an entry: the local time, then ``text``. A full disk does not stop the run."""
        entry = visible(text).rstrip("\n").replace("\n", "\n    ")
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {entry}\n"
        with suppress(OSError, LeaseLostError):  # what is noted is shown on the terminal too
            self._fence.append(self.path, line.encode("utf-8", "backslashreplace"))

    def __enter__(self) -> Self:
        for package in PACKAGES:
            logging.getLogger(package).addHandler(self._handler)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for package in PACKAGES:
            logging.getLogger(package).removeHandler(self._handler)
        if isinstance(error, Exception):
            self.note("the run failed\n" + "".join(traceback.format_exception(error)))
            error.add_note(f"{PREFIX}{self.path}")
        elif error is not None:  # SystemExit, KeyboardInterrupt
            self.note(f"the run ends early: {error!r}")


class _Handler(logging.Handler):
    """Passes warnings on to the log, with their tracebacks."""

    def __init__(self, log: RunLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.note(self.format(record))
