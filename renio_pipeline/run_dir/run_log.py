"""A run's ``log.txt``: every note with its time, every traceback, and what libraries print."""

from __future__ import annotations

import logging
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Self

PACKAGES = ("renio_pipeline", "actors")  # whose loggers write to the log
PREFIX = "log: "  # of the note on an error that says where the log is


class RunLog:
    """Usage: ``with RunLog(path) as log: log.note(...)``. An error that leaves the context is logged with its traceback.

    The file is appended to, so that a resumed run continues it. Each entry is handed to the operating system before ``note``
    returns. Lines after an entry's first are indented.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handler = _Handler(self)

    def note(self, text: str) -> None:
        """Append an entry: the local time, then ``text``. A full disk does not stop the run."""
        entry = text.rstrip("\n").replace("\n", "\n    ")
        try:
            with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {entry}\n")
        except OSError:
            pass  # what is noted is shown on the terminal too

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
