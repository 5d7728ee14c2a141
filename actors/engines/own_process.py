"""An engine in a process of its own: what it needs of its node, and what it said if it did not start.

vLLM's error for an engine that did not start is "see root cause above": the cause is in the engine's own log, on its node.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from actors.cluster.processes import log_files
from actors.errors import EngineFailed
from renio_pipeline.config import ConfigError

SHARED_MEMORY = Path("/dev/shm")
QUEUE_BYTES = 241 * 2**20  # vLLM's largest queue between an engine and its workers: ten pieces of 24 MiB, and their marks
LINES = 20  # of the engine's own, in the error
_LOGGED = re.compile(r"\((?P<who>\w+)[^)]*\) (?P<level>[A-Z]+) [\d-]+ [\d:]+ \[[^\]]+\] ?(?P<text>.*)")


def check_shared_memory(section: str, *, separate_process: bool, tensor_parallel: int, on_gpu: bool) -> None:
    """Raises ConfigError if this node's shared memory has no room for the queues of an engine and its workers.

    An engine with one worker has such queues on a CPU alone, in a process of its own.

    Args:
        section: of the configuration, which has the engine's keys.
    """
    if not (tensor_parallel > 1 or (separate_process and not on_gpu)) or not SHARED_MEMORY.is_dir():
        return
    status = os.statvfs(SHARED_MEMORY)
    free = status.f_frsize * status.f_bavail
    if free < QUEUE_BYTES:
        key = "tensor_parallel" if tensor_parallel > 1 else "separate_process"
        raise ConfigError(
            f"{section}.{key}: an engine in a process of its own needs {QUEUE_BYTES >> 20} MiB of {SHARED_MEMORY}, which has "
            f"{free >> 20} MiB free here; give the container more with --shm-size=2g or --ipc=host (Kubernetes: a volume "
            f"emptyDir with medium Memory at {SHARED_MEMORY})"
        )


@contextmanager
def last_words() -> Iterator[None]:
    """Around the start of an engine in a process of its own.

    Raises:
        EngineFailed: it did not start. The message has its cause and its last lines, where its log can be read.
    """
    before = {path: path.stat().st_size for path in log_files(os.getpid())}
    try:
        yield
    except RuntimeError as error:
        written = [line for path in log_files(os.getpid()) for line in _since(path, before.get(path, 0))]
        cause, lines = root_cause(written)
        if not lines:
            raise
        told = [
            f"the engine's own process did not start: {cause or error}",
            "its last lines:",
            *(f"  | {line}" for line in lines),
        ]
        raise EngineFailed("\n".join(told)) from error


def root_cause(written: Sequence[str]) -> tuple[str | None, list[str]]:
    """The error that an engine or a worker of it logged, and its last lines.

    Args:
        written: the lines of the engine's log since it was started, in order.

    Returns:
        The error's own line, or None if no process logged any, as where one was killed; and the last lines that the process
        that failed first has written, or those of all of them.
    """
    logged = [found for line in written if (found := _LOGGED.match(line))]
    failed = [found for found in logged if found["level"] in ("ERROR", "CRITICAL", "FATAL")]
    if not failed:
        return None, [line for line in written if line.strip()][-LINES:]
    # A worker that fails makes its engine fail after it; the engine's error only points to the worker's.
    first = min(failed, key=lambda found: not found["who"].startswith("Worker"))["who"]
    lines = [found["text"] for found in failed if found["who"] == first and found["text"].strip()]
    return next((line for line in reversed(lines) if re.match(r"[\w.]+: ", line)), None), lines[-LINES:]


def _since(path: Path, position: int) -> list[str]:
    with path.open("rb") as file:
        file.seek(position)
        return file.read().decode(errors="replace").splitlines()
