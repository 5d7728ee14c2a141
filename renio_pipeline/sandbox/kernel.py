"""System calls that Python 3.11 has no function for, through the C library. Linux only."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
NOSUID, NODEV, BIND, RECURSIVE, PRIVATE = 2, 4, 4096, 16384, 1 << 18
_DETACH = 2
_PDEATHSIG, _DUMPABLE, _SECCOMP, _CHILD_SUBREAPER, _NO_NEW_PRIVS = 1, 4, 22, 36, 38
_MOUNT_SETATTR = 442  # newer system calls have the same number on every architecture
_EPERM, _ENOSYS, _EAFNOSUPPORT = 1, 38, 97

# System calls that a program does not need and could evade a limit with: its own namespaces (where it may mount), memory that
# belongs to no process, the memory of other processes, and the parts of the kernel with the most vulnerabilities.
_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_REFUSED = {  # name: its number on each of these machines
    "ptrace": (101, 117), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "unshare": (272, 97),
    "setns": (308, 268), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "shmget": (29, 194),
    "msgget": (68, 186), "io_uring_setup": (425, 425), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
}  # fmt: skip
_SOCKETS = {"socket": (41, 198), "socketpair": (53, 199)}
_FAMILIES = (1, 2, 10)  # unix and internet: confined by a network namespace; others, such as vsock, reach outside
_CLONE = (56, 220)
_CLONE3 = 435

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args: object) -> None:
    """Make a call of the C library. Raises OSError, with the name of the call."""
    if getattr(_libc, name)(*args) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    _call("unshare", flags)


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    _call("mount", source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), options.encode())


def bind(source: str, target: str) -> None:
    mount(source, target, None, BIND | RECURSIVE)


def read_only(path: str) -> None:
    """Make the mount at ``path`` and everything below it read-only, without set-user-id and devices. Needs Linux 5.12."""
    attributes = ctypes.create_string_buffer(struct.pack("QQQQ", 1 | NOSUID | NODEV, 0, 0, 0), 32)
    _call("syscall", _MOUNT_SETATTR, -100, path.encode(), 0x8000, attributes, ctypes.c_size_t(32))


def make_root(path: str) -> None:
    """Make ``path``, a mount, the root. The old root becomes unreachable."""
    os.chdir(path)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", _DETACH)
    os.chdir("/")


def die_with_parent() -> None:
    """Send this process SIGKILL as soon as the thread that started it ends. A change of user clears the setting."""
    _call("prctl", _PDEATHSIG, 9, 0, 0, 0)


def adopt_orphans() -> None:
    """Make descendants whose parent ends children of this process, so that they can still be found."""
    _call("prctl", _CHILD_SUBREAPER, 1, 0, 0, 0)


def be_untraceable() -> None:
    """Forbid even processes of the same user to inspect this process and its children."""
    _call("prctl", _DUMPABLE, 0, 0, 0, 0)


def no_new_privileges() -> None:
    """Drop all capabilities, and prevent programs that are started from gaining any."""
    _call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0), 8)
    _call("capset", header, ctypes.create_string_buffer(24))


def refuse_calls() -> None:
    """Install the seccomp filter. Raises OSError on an architecture whose system calls are not listed here."""
    machine = os.uname().machine
    if machine not in _MACHINES:
        raise OSError(_ENOSYS, f"no list of system calls for {machine}; known: {', '.join(_MACHINES)}")
    column = list(_MACHINES).index(machine)
    refused = [numbers[column] for numbers in _REFUSED.values()]
    sockets = [numbers[column] for numbers in _SOCKETS.values()]
    program = b"".join(_filter(_MACHINES[machine], _CLONE[column], refused, sockets))
    code = ctypes.create_string_buffer(program, len(program))
    filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)), 16)
    _call("prctl", _SECCOMP, 2, filter_, 0, 0)


def _filter(architecture: int, clone: int, refused: Iterable[int], sockets: Iterable[int]) -> Iterable[bytes]:
    """Classic BPF over ``struct seccomp_data``: the call's number at 0, the architecture at 4, the first argument at 16."""
    load, equal, at_least, any_bit, ends = 0x20, 0x15, 0x35, 0x45, 0x06
    kill, allow, error = 0x80000000, 0x7FFF0000, 0x00050000

    def op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    yield from (op(load, 4), op(equal, architecture, 1), op(ends, kill), op(load, 0))
    yield from (op(at_least, 0x40000000, 0, 1), op(ends, error | _EPERM))  # the x32 ABI: the same calls under other numbers
    yield from (op(equal, _CLONE3, 0, 1), op(ends, error | _ENOSYS))  # the C library then falls back to clone
    for number in refused:
        yield from (op(equal, number, 0, 1), op(ends, error | _EPERM))
    for number in sockets:
        most = len(_FAMILIES)
        yield from (op(equal, number, 0, most + 3), op(load, 16))
        yield from (op(equal, family, most - place) for place, family in enumerate(_FAMILIES))
        yield from (op(ends, error | _EAFNOSUPPORT), op(ends, allow))
    spaces = NEWUSER | NEWNS | NEWPID | NEWNET
    yield from (op(equal, clone, 0, 3), op(load, 16), op(any_bit, spaces, 0, 1), op(ends, error | _EPERM))
    yield op(ends, allow)
