"""The inside of a box, up to the moment where the program starts.

    box ─> watchman ─> init ─> program ─> whatever it starts
           outside     process 1 of the box's own process, mount, network and ipc namespaces (and user namespace, unless
                       it was started by root)

The watchman counts all that runs inside, sums up its memory, and ends it when the owner is gone. Init never runs the program's
code: it forks a child for each job, and when init dies, by whatever hand, the kernel kills all the others. With ``weak`` there
are no namespaces: a child is a process group, and the watchman ends what it finds below itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
from typing import Any, NoReturn

from renio_pipeline.sandbox import jobs, kernel

_ROOT = "/proc"  # where the new root is put together: a directory that every system has, and nothing we bind lies in
_HIDDEN = ("/usr/src", "/usr/local/src")  # where some keep their own work
_DEVICES = ("null", "zero", "random", "urandom")
_FIRST_USER, _USERS = 61184, 4096  # numbers that belong to nobody; a box has its own, as processes are counted by user
_TICK = 0.02  # seconds between two looks at the memory
_INODES = 4096


def main(control: int, calls: int) -> None:
    """``control`` and ``calls`` are inherited sockets (``calls``: -1 for none). The first message gives the limits."""
    channel = socket.socket(fileno=control)
    line = channel.makefile("rb", buffering=0).readline()  # not a byte more than the line
    if not line:
        return
    settings: dict[str, Any] = json.loads(line)
    kernel.adopt_orphans()
    if settings["strict"]:
        kernel.die_with_parent()  # and the namespace with it; a weak box has nobody else who could end what is left
    try:
        user, group = _alone() if settings["strict"] else (os.getuid(), os.getgid())
    except OSError as error:
        _refuse(channel, error)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    init = os.fork()
    if init == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        _init(channel, calls, settings, user, group)
    if calls >= 0:
        os.close(calls)
    _watch(init, settings, channel)


def _alone() -> tuple[int, int]:
    """A process namespace for what is forked next; the user and group that the program will have."""
    user, group = os.getuid(), os.getgid()
    if user == 0:
        kernel.unshare(kernel.NEWPID)
        nobody = _FIRST_USER + os.getpid() % _USERS
        return nobody, nobody
    kernel.unshare(kernel.NEWUSER | kernel.NEWPID)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")
    return user, group


def _refuse(channel: socket.socket, error: Exception) -> None:
    with contextlib.suppress(OSError):
        channel.sendall(json.dumps({"refused": f"{type(error).__name__}: {error}"}).encode() + b"\n")


def _init(channel: socket.socket, calls: int, settings: dict[str, Any], user: int, group: int) -> None:
    status = 1
    try:
        if settings["strict"]:
            kernel.unshare(kernel.NEWNS | kernel.NEWNET | kernel.NEWIPC | kernel.NEWUTS)
            _own_root(settings, user, group)
            _drop(user, group)
        kernel.no_new_privileges()
        kernel.be_untraceable()
        kernel.die_with_parent()
        if settings["strict"]:
            kernel.refuse_calls()
        jobs.serve(channel, calls, settings)
        status = 0
    except Exception as error:
        _refuse(channel, error)
    finally:
        os._exit(status)


def _own_root(settings: dict[str, Any], user: int, group: int) -> None:
    """A root of its own: the Python installation to read, a folder to write, and four devices."""
    kernel.mount("none", "/", None, kernel.RECURSIVE | kernel.PRIVATE)
    kernel.mount("tmpfs", _ROOT, "tmpfs", kernel.NOSUID, "size=1m,mode=755")
    for path in settings["visible"]:
        inside = _ROOT + path
        if os.path.islink(path):
            os.symlink(os.readlink(path), inside)
        elif os.path.isdir(path) and not os.path.exists(inside):  # else it lies in one that was bound before
            os.makedirs(inside)
            kernel.bind(path, inside)
            for hidden in (_ROOT + h for h in _HIDDEN if h.startswith(path + "/")):
                if os.path.isdir(hidden) and os.path.realpath(hidden) == hidden:  # else it lies elsewhere, and is not bound
                    kernel.mount("tmpfs", hidden, "tmpfs", kernel.NOSUID, "size=1m,mode=755")
    for folder in ("/dev", settings["folder"]):
        os.mkdir(_ROOT + folder)
    for name in _DEVICES:
        _write(f"{_ROOT}/dev/{name}", "")
    kernel.read_only(_ROOT)
    for name in _DEVICES:
        kernel.bind(f"/dev/{name}", f"{_ROOT}/dev/{name}")
    options = f"size={settings['files']},nr_inodes={_INODES},mode=700,uid={user},gid={group}"
    kernel.mount("tmpfs", _ROOT + settings["folder"], "tmpfs", kernel.NOSUID | kernel.NODEV, options)
    kernel.make_root(_ROOT)


def _drop(user: int, group: int) -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)


def _watch(init: int, settings: dict[str, Any], channel: socket.socket) -> NoReturn:
    """Wait for init's end; end all that is left where that is too many, or holds too much, or the owner is gone."""
    owner = select.poll()
    owner.register(channel, 0)  # it hangs up, and nothing else counts
    while not os.waitpid(init, os.WNOHANG)[0]:
        signal.sigtimedwait([signal.SIGCHLD], _TICK)
        below = _below(os.getpid())
        if owner.poll(0) or len(below) > settings["processes"] + 1 or sum(map(_resident, below)) > settings["memory"]:
            break
    while below := _below(os.getpid()):
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    os._exit(0)


def _below(root: int) -> list[int]:
    """All processes that descend from ``root``."""
    found = [root]
    for pid in found:
        for task in _listed(f"/proc/{pid}/task"):  # a child belongs to the thread that made it
            with contextlib.suppress(OSError):  # it may be gone by now
                found += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    return found[1:]


def _listed(path: str) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(path)
    return []


def _resident(pid: int) -> int:
    """Bytes that a process holds."""
    with contextlib.suppress(OSError):
        return int(_read(f"/proc/{pid}/statm").split()[1]) * resource.getpagesize()
    return 0


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
