"""A deadline that does not depend on how busy the machine is.

What counts is CPU time, so processes that a loaded machine keeps waiting lose nothing. CPU time does not advance in processes
that sleep for ever: those are cut off by the clock, which runs only while none of them is running or waiting for a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from os import sysconf
from pathlib import Path

LOOK_SECONDS = 0.1  # between two looks at a process
IDLE_FACTOR = 5.0
_TICKS = sysconf("SC_CLK_TCK")  # a second, in which the kernel counts CPU time


class CutOff(Exception):
    """A process gave no answer: it died, or exceeded its deadline. The text is the reason, after "its worker"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """What one answer may cost."""

    cpu_seconds: float  # of the watched processes, all their threads
    idle_seconds: float  # by the clock, in which they and all that they have started slept, waited or were stopped

    @classmethod
    def of(cls, seconds: float) -> Deadline:
        """``seconds`` of CPU time, and ``IDLE_FACTOR`` times as many of idleness."""
        return cls(cpu_seconds=seconds, idle_seconds=IDLE_FACTOR * seconds)


class Watch:
    """One answer's deadline: ``look`` every ``LOOK_SECONDS`` while there is none."""

    def __init__(self, pids: Sequence[int], deadline: Deadline, *, of_descendants: bool = False) -> None:
        """``of_descendants``: whether the processes only look after others, so that it is those others that are watched."""
        self._pids, self._deadline, self._of_descendants = list(pids), deadline, of_descendants
        self._cpu_before: float | None = None
        self._active = 0.0  # seconds that all have run or waited for a CPU, at the last look
        self._idle = 0.0
        self._looked = time.monotonic()

    def look(self) -> None:
        """Raises CutOff."""
        own = [_usage(pid) for pid in self._pids]
        if any(one.ended for one in own):
            raise CutOff("ended")  # though a process that it left behind may hold its output open
        below = [_usage(pid) for root in self._pids for pid in descendants(root)]
        watched = below if self._of_descendants else own + below
        cpu = sum(one.cpu for one in (watched if self._of_descendants else own))
        active = sum(one.cpu + one.waited for one in watched)
        if self._cpu_before is None:
            self._cpu_before, self._active = cpu, active
        now = time.monotonic()
        passed = min(now - self._looked, 2 * LOOK_SECONDS)  # whoever looks may have been kept waiting for longer
        if not any(one.runs for one in watched if one.waited == 0):
            self._idle += max(0.0, passed - max(0.0, active - self._active))
        self._looked, self._active = now, active
        if cpu - self._cpu_before > self._deadline.cpu_seconds:
            raise CutOff(f"used more than {self._deadline.cpu_seconds:g} s of CPU time")
        if self._idle > self._deadline.idle_seconds:
            raise CutOff(f"was idle for more than {self._deadline.idle_seconds:g} s")


@dataclass(frozen=True, slots=True)
class _Usage:
    ended: bool
    runs: bool  # or waits for a CPU
    cpu: float  # seconds, of it and its ended children
    waited: float  # seconds for a CPU, so far; 0 where the kernel does not count them


def descendants(root: int) -> list[int]:
    """The process ids of all that a process has started, and they in turn."""
    found = [root]
    for pid in found:
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():  # a child is listed under the thread that created it
                found += map(int, (task / "children").read_text(encoding="utf-8").split())
        except OSError:  # it has just ended
            continue
    return found[1:]


def _usage(pid: int) -> _Usage:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")  # the name in it may be any bytes
        fields = text.rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return _Usage(ended=True, runs=False, cpu=0.0, waited=0.0)
    cpu = sum(map(int, fields[11:15])) / _TICKS
    return _Usage(ended=fields[0] == "Z", runs=fields[0] == "R", cpu=cpu, waited=_waited(pid))


def _waited(pid: int) -> float:
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text(encoding="utf-8").split()[1])
    except (OSError, IndexError):  # it has just ended, or the kernel counts nothing
        pass
    return total / 1e9
