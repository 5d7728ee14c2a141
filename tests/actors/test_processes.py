"""Ending processes by their number, which may not mean what it did."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from actors.cluster.processes import _kill

SLEEP = "import time; time.sleep(60)"


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    made = subprocess.Popen(command)
    try:
        yield made
    finally:
        made.kill()
        made.wait()


def test_a_worker_of_rays_is_killed() -> None:
    with process("bash", "-c", f"exec -a ray::Generator {sys.executable} -c '{SLEEP}'") as worker:
        while not " ".join(psutil.Process(worker.pid).cmdline()).startswith("ray::"):
            time.sleep(0.01)
        _kill(worker.pid)
        assert worker.wait(30) == -9


def test_a_number_that_is_anothers_by_now_is_left_alone() -> None:
    with process(sys.executable, "-c", SLEEP) as other:
        _kill(other.pid)
        time.sleep(0.2)
        assert other.poll() is None


def test_a_zombie_and_a_number_that_is_nobodys_are_no_errors() -> None:
    with process("true") as dead:
        while psutil.Process(dead.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        _kill(dead.pid)
    _kill(dead.pid)
