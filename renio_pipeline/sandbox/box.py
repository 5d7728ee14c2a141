"""A box: one interpreter within limits, which runs jobs on demand. Usage:

with Box(Limits()) as box:
    box.post({"kind": "script", "code": "print(input())", "stdin": "5"})
    reply = box.reply(seconds=2)

A ``strict`` box needs kernel namespaces and is refused without them. A ``weak`` box has only resource limits and its own
process group: its program can read whatever the user can read, and can use the network.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.sandbox.deadline import LOOK_SECONDS, CutOff, Deadline, Watch
from renio_pipeline.sandbox.limits import Limits, Mode

_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
_MAIN = """import sys; sys.path.insert(0, sys.argv[1])
from renio_pipeline.sandbox import jail; jail.main(int(sys.argv[2]), int(sys.argv[3]))"""
_START_SECONDS = 20.0  # generous, for a busy machine; a start takes about 30 ms
_END_SECONDS = 5.0  # allowed for a weak box to end what its program started
_FOLDER = "/box"  # inside the box; not /tmp, where a Python installation may be
_MOST_REPLY = 256 << 20  # bytes
_PIECE = 1 << 16


class Refused(RuntimeError):
    """The kernel, or a security module, does not permit the box."""


class Ended(RuntimeError):
    """The box ended before it replied: out of memory, killed, or its own fault."""


class Box:
    def __init__(self, limits: Limits, *, mode: Mode = "strict", calls: socket.socket | None = None) -> None:
        """Start the box. It does not outlive the thread that created it.

        Args:
            calls: a socket for the program, over which its functions are called or it calls others; closed here once the box
                has it.
        """
        self._folder = _FOLDER if mode == "strict" else tempfile.mkdtemp(prefix="renio-")
        self._mode = mode
        self._channel, theirs = socket.socketpair()
        python, inherited = str(Path(sys.executable).resolve()), [theirs.fileno(), calls.fileno() if calls else -1]
        self._process = subprocess.Popen(
            [python, "-s", "-S", "-P", "-c", _MAIN, _PACKAGE_ROOT, *map(str, inherited)],
            env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"},
            cwd="/",
            start_new_session=True,
            pass_fds=[fd for fd in inherited if fd >= 0],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        theirs.close()
        if calls:
            calls.close()
        self._line = bytearray()  # what has arrived of the next reply
        self._ready = False
        try:
            self._send(limits.settings(mode, self._folder))
        except BaseException:
            self.close()
            raise

    def post(self, job: dict[str, Any]) -> None:
        """Submit a job. Its ``kind`` is the name of a function in ``renio_pipeline.sandbox.programs``.

        Raises:
            Refused: the box could not be created.
            Ended: the box is gone.
        """
        if not self._ready:
            self._receive(_START_SECONDS)
            self._ready = True
        self._send(job)

    @property
    def pid(self) -> int:
        """Of the process above all of the box's."""
        return self._process.pid

    def reply(self, seconds: float, *, watch: Watch | None = None) -> dict[str, Any]:
        """The result of the oldest job without a reply.

        Args:
            seconds: by the clock, that the box may be idle for: no process of it runs, or waits for a CPU. ``watch`` in its
                place bounds CPU time as well, or looks at more than this box.

        Raises:
            TimeoutError: there is no result in that time.
            Ended: the box is gone.
        """
        watch = watch or Watch([self.pid], Deadline(cpu_seconds=math.inf, idle_seconds=seconds), of_descendants=True)
        while True:
            try:
                return self._receive(LOOK_SECONDS)
            except TimeoutError:
                overdue(watch)

    def close(self) -> None:
        """End everything that runs in the box. Returns once it is gone."""
        self._channel.close()  # the watchdog sees it
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0 if self._mode == "strict" else _END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._mode == "weak":
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Box:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _send(self, message: dict[str, Any]) -> None:
        self._channel.settimeout(_START_SECONDS)
        try:
            self._channel.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise Ended(f"the sandbox ended: {error}") from error

    def _receive(self, seconds: float) -> dict[str, Any]:
        self._channel.settimeout(seconds)
        try:
            while not self._line.endswith(b"\n"):
                piece = self._channel.recv(_PIECE)
                if not piece or len(self._line) > _MOST_REPLY:
                    raise Ended("the sandbox ended before its program did")
                self._line += piece
            reply: dict[str, Any] = json.loads(bytes(self._line))
            self._line.clear()
        except TimeoutError:
            raise
        except (OSError, ValueError) as error:
            raise Ended("the sandbox ended before its program did") from error
        if "refused" in reply:
            raise Ended(str(reply["refused"])) if self._ready else Refused(str(reply["refused"]))
        return reply


def overdue(watch: Watch) -> None:
    """Look once. Raises TimeoutError in the place of CutOff."""
    try:
        watch.look()
    except CutOff as error:
        raise TimeoutError(str(error)) from None


def check(mode: Mode) -> None:
    """Try a box once. Raises ConfigError, with advice, if it cannot be created."""
    try:
        with Box(Limits(), mode=mode) as box:
            box.post({"kind": "script", "code": "print(6 * 7)"})
            assert box.reply(_START_SECONDS)["output"] == "42\n"
    except (Refused, Ended) as error:
        raise ConfigError(
            f"task_options.sandbox: {mode} is not possible on this machine ({error}). It needs Linux 5.12 or newer, and user "
            "namespaces, or root with CAP_SYS_ADMIN in a container. task_options.sandbox=weak only limits CPU, memory, "
            "processes and files: programs that the student writes can then read your files and use the network"
        ) from error
