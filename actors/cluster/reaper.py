"""Ends the processes that a run's own Ray would leave behind for a minute when the driver is killed.

Ray's processes notice a killed driver within seconds, but its agents then wait 60 s for a report to a server that is dead too.
Runs as a script next to the driver: its standard input is a pipe whose other end closes when the driver dies, however it dies.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys

import psutil

GRACE_SECONDS = 5.0


def start() -> subprocess.Popen[bytes]:
    """Watch this process's descendants. Closing the returned process's ``stdin`` kills them and ends the watch."""
    command = [sys.executable, __file__, str(os.getpid())]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def watch(driver_pid: int, seconds: float = 2.0) -> None:
    descendants: set[psutil.Process] = set()
    try:
        driver = psutil.Process(driver_pid)
        while not select.select([sys.stdin], [], [], seconds)[0]:
            # A driver that dies during this look has no children any more, so those of earlier looks are kept.
            found = {p for p in driver.children(recursive=True) if p.pid != os.getpid()}
            descendants = found | {p for p in descendants if p.is_running()}
    except psutil.NoSuchProcess:
        pass
    _, left = psutil.wait_procs(list(descendants), timeout=GRACE_SECONDS)
    for process in left:
        try:
            process.kill()  # psutil compares start times, so a reused process id is left alone
        except psutil.NoSuchProcess:
            continue


if __name__ == "__main__":
    watch(int(sys.argv[1]))
