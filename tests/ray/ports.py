"""Ports for servers that are told theirs before they listen, which no two of them are given, whichever process asks."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator

# Above those that Ray gives its workers, and below those that the kernel gives to whoever names none (32768 on).
FIRST, LAST = 20_000, 31_999
PROCESSES = 8  # of pytest-xdist, at most: each has every eighth port


def free_port() -> int:
    """One on which nobody listens, and which this process was not given before."""
    return next(port for port in _MINE if _is_free(port))


def _mine() -> Iterator[int]:
    """From anywhere on: another session on this machine began elsewhere."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PROCESSES
    ports = range(FIRST + process, LAST + 1, PROCESSES)
    begin = random.SystemRandom().randrange(len(ports))
    while True:
        yield ports[begin % len(ports)]
        begin += 1


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


_MINE = _mine()
