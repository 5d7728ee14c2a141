"""What reaches the terminal: any text, and during a run what its main thread prints. All else goes to the run's log.

When a node dies, Ray's C++ core writes at length to file descriptor 2, and a thread of Ray's prints to ``sys.stdout`` what the
cluster reports. The run's own notes say what was lost.
"""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from threading import current_thread, local, main_thread
from typing import Any, TextIO

from renio_pipeline.run_dir.fence import own_file
from renio_pipeline.visible import visible

_aloud = local()  # of each thread: whether it is within ``aloud``


def write_any_text() -> None:
    """Have standard output and error take every text: in UTF-8 where the locale has only ASCII, otherwise with escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="utf-8" if ascii_only else None, errors="backslashreplace")


def say(text: str) -> None:
    """A line on standard error, at once."""
    print(visible(text), file=sys.stderr, flush=True)


def nobody_reads() -> bool:
    """Whether the reader of standard output has gone. If so, what is still buffered for it goes nowhere."""
    poll = select.poll()
    poll.register(1, 0)
    if not any(events & select.POLLERR for _, events in poll.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # or the interpreter would complain at its end
    os.close(nowhere)
    return True


@contextmanager
def only_the_main_thread(log: Path) -> Iterator[None]:
    """Within the context ``log`` gets what other threads, the C++ code of libraries, and child processes print."""
    with ExitStack() as stack:
        raw = io.BufferedWriter(own_file(log, os.O_APPEND))
        chatter = stack.enter_context(io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True))
        sys.stderr.flush()
        terminal = os.dup(2)
        stack.callback(os.close, terminal)
        stack.callback(os.dup2, terminal, 2)
        stack.callback(lambda: sys.stderr.flush())
        own_descriptor = _descriptor(sys.stderr) == 2
        errors = stack.enter_context(_copy(sys.stderr, terminal)) if own_descriptor else sys.stderr
        os.dup2(chatter.fileno(), 2)
        for redirect, before, shown in ((redirect_stdout, sys.stdout, sys.stdout), (redirect_stderr, sys.stderr, errors)):
            stream = _ByThread(before, shown, chatter)
            stack.enter_context(redirect(stream))
            stack.callback(stream.end)
        yield


@contextmanager
def aloud() -> Iterator[None]:
    """Within the context what this thread prints reaches the terminal, as the main thread's does."""
    _aloud.now = True
    try:
        yield
    finally:
        _aloud.now = False


class _ByThread:
    """A text stream of which only the main thread's output, and what is said ``aloud``, reaches ``shown``."""

    def __init__(self, before: TextIO, shown: TextIO, chatter: TextIO) -> None:
        self._before, self._shown, self._chatter = before, shown, chatter

    def end(self) -> None:
        """From now on write to the stream from before. A library's log handler may keep this object longer than the run."""
        self._shown = self._chatter = self._before

    def write(self, text: str) -> int:
        return self._stream().write(text)

    def flush(self) -> None:
        self._stream().flush()

    def _stream(self) -> TextIO:
        heard = current_thread() is main_thread() or getattr(_aloud, "now", False)
        return self._shown if heard else self._chatter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shown, name)


def _copy(stream: TextIO, descriptor: int) -> TextIO:
    """A stream that writes to ``descriptor`` as ``stream`` does: standard error escapes what it cannot encode."""
    return os.fdopen(os.dup(descriptor), "w", buffering=1, encoding=stream.encoding, errors=stream.errors)


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):  # a stream in memory
        return None
