"""A deadline that does not depend on how busy the machine is.

A question's cost is the CPU time of the worker that answers it, so a worker that a loaded machine keeps waiting loses nothing.
CPU time does not advance in a worker that sleeps for ever: that one is cut off by the clock, after a generous time in which it
was not even runnable.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import sysconf
from pathlib import Path

LOOK_SECONDS = 0.1  # between two looks at a worker
IDLE_FACTOR = 5.0
_TICKS = sysconf("SC_CLK_TCK")  # a second, in which the kernel counts CPU time


class CutOff(Exception):
    """A worker gave no answer: it died, or exceeded its deadline. The text is the reason, after "its worker"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """What one answer may cost. Processes that a verifier starts count as time in which its worker is idle."""

    cpu_seconds: float  # of the worker process, all its threads
    idle_seconds: float  # by the clock, in which the worker slept, waited or was stopped

    @classmethod
    def of(cls, seconds: float) -> Deadline:
        """``seconds`` of CPU time, and ``IDLE_FACTOR`` times as many of idleness."""
        return cls(cpu_seconds=seconds, idle_seconds=IDLE_FACTOR * seconds)


class Watch:
    """One question's deadline: ``look`` every ``LOOK_SECONDS`` while there is no answer."""

    def __init__(self, pid: int, deadline: Deadline) -> None:
        self._pid, self._deadline = pid, deadline
        self._cpu_before: float | None = None
        self._cpu = 0.0  # at the last look
        self._idle = 0.0

    def look(self) -> None:
        """Raises CutOff."""
        state, cpu = _usage(self._pid)
        if state == "Z":
            raise CutOff("ended")  # though a process that it left behind may hold its output open
        if self._cpu_before is None:
            self._cpu_before = cpu
        if state != "R" and cpu == self._cpu:
            self._idle += LOOK_SECONDS  # not the time since the last look: whoever looks may have been kept waiting
        self._cpu = cpu
        if cpu - self._cpu_before > self._deadline.cpu_seconds:
            raise CutOff(f"used more than {self._deadline.cpu_seconds:g} s of CPU time")
        if self._idle > self._deadline.idle_seconds:
            raise CutOff(f"was idle for more than {self._deadline.idle_seconds:g} s")


def _usage(pid: int) -> tuple[str, float]:
    """A process's state (R: running or waiting for a CPU; Z: ended) and the CPU seconds that it has used."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")  # the name in it may be any bytes
        fields = text.rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "Z", 0.0
    return fields[0], (int(fields[11]) + int(fields[12])) / _TICKS
