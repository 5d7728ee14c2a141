"""What init does for the box's owner: fork a child per program, limit it, collect its output, and end all that it started."""

from __future__ import annotations

import builtins
import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from renio_pipeline.sandbox import kernel, programs, testing

_PIECE = 1 << 16
_ABOVE = 16  # file descriptors
STDIN = "stdin"  # the file in the box's folder that has it
_CPUS = 2  # that a program is told of: what it starts for each must not depend on the machine
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def serve(channel: socket.socket, calls: int, settings: dict[str, Any]) -> None:
    """Run one job after another until the owner hangs up.

    The reply to a job has ``output``, ``status`` (0: success) and ``over`` (the output exceeded its limit).
    """
    sys.path[:] = [*(p for p in sys.path if p.startswith(sys.base_prefix)), *settings["packages"]]
    kinds: dict[str, Callable[[dict[str, Any], int], None]] = {
        "script": programs.script,
        "functions": programs.functions,
        "program": programs.program,
        "tests": testing.tests,
    }
    channel.sendall(b'{"ready": true}\n')
    for number, line in enumerate(channel.makefile("rb")):
        job = json.loads(line)
        if number:  # what the last program has left behind
            _clear(settings["folder"])
            _clear("/dev/shm" if settings["strict"] else settings["folder"])
        folder = f"{settings['folder']}/{number}"
        os.mkdir(folder, 0o700)
        stdin, (out, into) = _file(settings["folder"], job.get("stdin", "")), os.pipe()
        child = os.fork()
        if child == 0:
            channel.detach()  # its descriptor is closed with the others
            _become(kinds[job["kind"]], job, [stdin, into, calls], folder, settings)
        for fd in (stdin, into, calls):
            if fd >= 0:
                os.close(fd)
        calls = -1  # the reader at the other end must see it close when the child ends
        output, over = _gather(out, child, job.get("most_output", settings["output"]))
        status = _end(child, settings["strict"])
        reply = {"output": output.decode(errors="replace"), "status": status, "over": over}
        channel.sendall(json.dumps(reply).encode() + b"\n")


def _clear(folder: str) -> None:
    """Delete what is in a folder, as far as that is possible."""
    with contextlib.suppress(OSError, RecursionError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    _clear(entry.path)
                    os.rmdir(entry.path)
                else:
                    os.unlink(entry.path)


def _file(folder: str, text: str) -> int:
    """A file with this text, positioned at its start. It stays, because in a strict box ``/dev/stdin`` leads to it."""
    name = f"{folder}/{STDIN}"
    with open(name, "x", encoding="utf-8") as file:
        file.write(text)
    return os.open(name, os.O_RDONLY)


def _become(
    run: Callable[[dict[str, Any], int], None], job: dict[str, Any], fds: list[int], folder: str, settings: dict[str, Any]
) -> NoReturn:
    """In the child: drop everything that the program must not have, then run the program."""
    status = 1
    try:
        os.setpgid(0, 0)
        kernel.die_with_parent()
        _arrange(*fds, private=job["kind"] == "tests")
        _open_streams()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(_ENVIRONMENT, HOME=folder, TMPDIR=folder)
        _limit(settings)
        os.cpu_count = lambda: _CPUS
        builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # normally set by `site`, which was skipped
        run(job, programs.CALLS)
        status = 0
    except SystemExit as ending:
        status = 0 if ending.code in (None, 0) else 1
    except BaseException:
        status = 1
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(status)


def _arrange(stdin: int, into: int, calls: int, *, private: bool) -> None:
    """Keep only file descriptors 0 to 4. Standard output is collected, or with ``private`` a separate descriptor."""
    null = os.open(os.devnull, os.O_RDWR)
    order = [stdin, null if private else into, null, null if calls < 0 else calls, into if private else null]
    above = [fcntl.fcntl(fd, fcntl.F_DUPFD, _ABOVE) for fd in order]  # above the numbers that are about to be overwritten
    for target, fd in enumerate(above):
        os.dup2(fd, target, inheritable=target < programs.CALLS)
    os.closerange(len(order), 1 << 20)


def _open_streams() -> None:
    """Python's own streams have been opened for other files: they remember whether those could be sought in."""
    for name, mode, number in (("stdin", "r", 0), ("stdout", "w", 1), ("stderr", "w", 2)):
        old = getattr(sys, name)
        new = open(number, mode, encoding="utf-8", errors=old.errors, closefd=False)  # noqa: SIM115  # for good
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def _limit(settings: dict[str, Any]) -> None:
    limits = {
        "CPU": settings["cpu"],
        "AS": settings["memory"],
        "FSIZE": settings["files"],
        "NOFILE": settings["open_files"],
        "CORE": 0,
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
    }
    if settings["strict"]:
        # Without a user of its own, a weak box would count all of the user's processes; there the watchdog counts instead.
        limits["NPROC"] = settings["processes"]
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def _gather(fd: int, child: int, most: int) -> tuple[bytes, bool]:
    """The output until the child ended, and whether it exceeded ``most`` bytes."""
    pieces, size, ended = [], 0, os.pidfd_open(child)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.register(ended, select.POLLIN)
    while size <= most:
        ready = [number for number, _ in poll.poll()]
        if fd in ready:
            piece = os.read(fd, _PIECE)
            if piece:
                pieces.append(piece)
                size += len(piece)
                continue
            poll.unregister(fd)
        if ended in ready:
            break
    os.close(ended)
    os.close(fd)
    return b"".join(pieces)[:most], size > most


def _end(child: int, strict: bool) -> int:
    """Kill and reap whatever is left, and return the child's exit status."""
    if strict:
        assert os.getpid() == 1, "only the first process of a namespace may kill everything that it sees"
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    status = -1
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, code = os.waitpid(-1, 0)
            status = os.waitstatus_to_exitcode(code) if pid == child else status
    return status
