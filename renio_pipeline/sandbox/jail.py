"""The inside of a box, up to the moment when the program starts.

    box ─> watchdog ─> init ─> program ─> whatever it starts
           outside     process 1 of the box's own process, mount, network and ipc namespaces (and user namespace, unless
                       it was started by root)

The watchdog counts the processes inside, adds up their memory, and ends them when the owner is gone. Init never runs the
program's code: it forks a child for each job, and when init dies for any reason, the kernel kills all the others. A ``weak``
box has no namespaces: a child is a process group, and the watchdog ends all its descendants.
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

_ROOT = "/proc"  # where the new root is assembled: every system has it, and nothing that we bind is inside
_HIDDEN = ("/usr/src", "/usr/local/src")  # where some users keep their own work
_DEVICES = ("null", "zero", "random", "urandom")
_FIRST_USER, _USERS = 61184, 4096  # unused user ids; each box has its own, because the kernel counts processes by user
_TICK = 0.02  # seconds between two memory checks
_INODES = 4096
_SHARED = "1m"  # of shared memory, which is for the semaphores of process pools


def main(control: int, calls: int) -> None:
    """Set the box up. ``control`` and ``calls`` are inherited sockets (-1: no calls). The first message has the limits."""
    channel = socket.socket(fileno=control)
    line = channel.makefile("rb", buffering=0).readline()  # unbuffered: reads not a byte beyond the line
    if not line:
        return
    settings: dict[str, Any] = json.loads(line)
    kernel.adopt_orphans()
    if settings["strict"]:
        kernel.die_with_parent()  # and with it the namespace; in a weak box, nobody else could end what is left
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
    """Create a process namespace for the next fork. Returns the user and group of the program."""
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
    """Make the box's own root: the Python installation (read-only), a writable folder, and four devices."""
    kernel.mount("none", "/", None, kernel.RECURSIVE | kernel.PRIVATE)
    kernel.mount("tmpfs", _ROOT, "tmpfs", kernel.NOSUID, "size=1m,mode=755")
    for path in settings["visible"]:
        inside = _ROOT + path
        if os.path.islink(path):
            os.symlink(os.readlink(path), inside)
        elif os.path.isdir(path) and not os.path.exists(inside):  # otherwise it is inside a folder that is already bound
            os.makedirs(inside)
            kernel.bind(path, inside)
            for hidden in (_ROOT + h for h in _HIDDEN if h.startswith(path + "/")):
                if os.path.isdir(hidden) and os.path.realpath(hidden) == hidden:  # otherwise it is elsewhere, and not bound
                    kernel.mount("tmpfs", hidden, "tmpfs", kernel.NOSUID, "size=1m,mode=755")
    for folder in ("/dev", "/dev/shm", settings["folder"]):
        os.mkdir(_ROOT + folder)
    os.symlink(f"{settings['folder']}/{jobs.STDIN}", f"{_ROOT}/dev/stdin")
    if not os.path.lexists(f"{_ROOT}/tmp"):  # otherwise the Python installation is there
        os.symlink(settings["folder"], f"{_ROOT}/tmp")
    for name in _DEVICES:
        _write(f"{_ROOT}/dev/{name}", "")
    kernel.read_only(_ROOT)
    for name in _DEVICES:
        kernel.bind(f"/dev/{name}", f"{_ROOT}/dev/{name}")
    options = f"size={settings['files']},nr_inodes={_INODES},mode=700,uid={user},gid={group}"
    kernel.mount("tmpfs", _ROOT + settings["folder"], "tmpfs", kernel.NOSUID | kernel.NODEV, options)
    kernel.mount(
        "tmpfs", f"{_ROOT}/dev/shm", "tmpfs", kernel.NOSUID | kernel.NODEV, f"size={_SHARED},mode=700,uid={user},gid={group}"
    )
    kernel.make_root(_ROOT)


def _drop(user: int, group: int) -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)


def _watch(init: int, settings: dict[str, Any], channel: socket.socket) -> NoReturn:
    """Wait for init to end. End everything if there are too many processes, too much memory is used, or the owner is gone."""
    owner = select.poll()
    owner.register(channel, 0)  # only a hang-up matters
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
    """All descendants of the process ``root``."""
    found = [root]
    for pid in found:
        for task in _listed(f"/proc/{pid}/task"):  # a child is listed under the thread that created it
            with contextlib.suppress(OSError):  # the task may have ended
                found += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    return found[1:]


def _listed(path: str) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(path)
    return []


def _resident(pid: int) -> int:
    """The resident memory of a process, in bytes."""
    with contextlib.suppress(OSError):
        return int(_read(f"/proc/{pid}/statm").split()[1]) * resource.getpagesize()
    return 0


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
