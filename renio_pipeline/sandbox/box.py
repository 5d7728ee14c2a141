"""A box: one interpreter inside limits, which does jobs on demand. Usage:

with Box(Limits()) as box:
    box.post({"kind": "script", "code": "print(input())", "stdin": "5"})
    reply = box.reply(seconds=2)

Where the kernel allows no namespaces a ``strict`` box is refused; a ``weak`` one has the limits and a process group of its own,
and no more: its program reads what its user may read and has the network.
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
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from renio_pipeline.config import ConfigError

Mode = Literal["strict", "weak"]
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
_MAIN = """import sys; sys.path.insert(0, sys.argv[1])
from renio_pipeline.sandbox import jail; jail.main(int(sys.argv[2]), int(sys.argv[3]))"""
_START_SECONDS = 20.0  # on a machine that is busy; a start takes a thirtieth of a second
_END_SECONDS = 5.0  # for a weak box to end what its program started
_FOLDER = "/box"  # inside; not /tmp, where a Python installation may lie
_MOST_REPLY = 64 << 20  # bytes


class Refused(RuntimeError):
    """The kernel, or whoever guards it, does not allow the box."""


class Ended(RuntimeError):
    """The box ended before it replied: memory, a kill, or its own fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one job. ``memory_mb`` bounds each process's address space, and what all of them hold together."""

    seconds: float = 6.0  # of CPU time, rounded up; the caller of ``reply`` bounds the wall clock
    memory_mb: int = 1024
    processes: int = 16
    files_mb: int = 32  # all files together
    output_kb: int = 1024
    open_files: int = 64

    def settings(self, mode: Mode, folder: str) -> dict[str, Any]:
        return {
            "strict": mode == "strict", "folder": folder, "cpu": math.ceil(self.seconds), "memory": self.memory_mb << 20,
            "processes": self.processes, "files": self.files_mb << 20, "output": self.output_kb << 10,
            "open_files": self.open_files, "packages": _packages(),
            "visible": ["/usr", "/lib", "/lib64", str(Path(sys.base_prefix).resolve()), sys.base_prefix, *_packages()],
        }  # fmt: skip


def _packages() -> list[str]:
    return sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


class Box:
    def __init__(self, limits: Limits, *, mode: Mode = "strict", calls: socket.socket | None = None) -> None:
        """``calls``: a socket that the program gets, to be called or to call by; it is closed here once the box has it.

        The box does not outlive the thread that made it.
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
        self._incoming = self._channel.makefile("rb")
        self._ready = False
        try:
            self._send(limits.settings(mode, self._folder))
        except BaseException:
            self.close()
            raise

    def post(self, job: dict[str, Any]) -> None:
        """Have a job done: ``kind`` is the name of a function of ``renio_pipeline.sandbox.programs``.

        Raises:
            Refused: the box could not be made.
            Ended: it is gone.
        """
        if not self._ready:
            self._receive(_START_SECONDS)
            self._ready = True
        self._send(job)

    def reply(self, seconds: float) -> dict[str, Any]:
        """What the job that was posted first gave.

        Raises:
            TimeoutError: it has not ended within ``seconds``.
            Ended: the box is gone.
        """
        return self._receive(seconds)

    def close(self) -> None:
        """End whatever runs in the box. Returns once it is gone."""
        self._incoming.close()
        self._channel.close()  # the watchman sees it
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
        self._channel.settimeout(max(seconds, 0.001))
        try:
            line = self._incoming.readline(_MOST_REPLY)
            reply: dict[str, Any] = json.loads(line)
        except TimeoutError:
            raise
        except (OSError, ValueError) as error:
            raise Ended("the sandbox ended before its program did") from error
        if "refused" in reply:
            raise Ended(str(reply["refused"])) if self._ready else Refused(str(reply["refused"]))
        return reply


def check(mode: Mode) -> None:
    """Try a box once. Raises ConfigError, with what to do, where it cannot be made."""
    try:
        with Box(Limits(), mode=mode) as box:
            box.post({"kind": "script", "code": "print(6 * 7)"})
            assert box.reply(_START_SECONDS)["output"] == "42\n"
    except (Refused, Ended) as error:
        raise ConfigError(
            f"task_options.sandbox: {mode} is not possible on this machine ({error}). It needs Linux 5.12 or newer, and user "
            "namespaces, or root with CAP_SYS_ADMIN in a container. task_options.sandbox=weak does with limits on CPU, memory, "
            "processes and files alone: programs that the student writes can then read your files and use the network"
        ) from error
