"""The CPU-seconds and the memory of a run's processes, by what they are for, read off /proc from outside."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

TICKS = os.sysconf("SC_CLK_TCK")
# Beginnings of the titles that Ray gives its workers' processes.
ACTORS = {
    "ray::Generator": "generator",
    "ray::TorchTeacher": "teacher",
    "ray::HiddenTeacher": "teacher",
    "ray::Teacher": "teacher",
    "ray::TrainerRank": "trainer",
    "ray::Weigher": "weighting",
}
ENGINES = ("generator", "teacher", "trainer")


@dataclass
class Snapshot:
    """All since the processes began. ``overhead`` is part of ``cpu``."""

    cpu: Counter[str] = field(default_factory=Counter)  # by role: its processes' CPU-seconds
    overhead: Counter[str] = field(default_factory=Counter)  # by role: those of threads that are not an engine's own
    memory: dict[str, int] = field(default_factory=dict)  # by role: the largest process's peak resident size, in bytes

    def since(self, before: Snapshot) -> Snapshot:
        cpu, overhead = Counter(self.cpu), Counter(self.overhead)
        cpu.subtract(before.cpu)
        overhead.subtract(before.overhead)
        return Snapshot(cpu=cpu, overhead=overhead, memory=self.memory)


def snapshot(driver: int, threads: int) -> Snapshot:
    """Of a driver and all its descendants.

    Args:
        threads: that an engine computes with. In an engine's process this many, the busiest, are taken for the engine's own;
            all others serve Ray, its messages, and Python's event loop.
    """
    found = Snapshot()
    for process in _family(driver):
        try:
            role = "driver" if process.pid == driver else _role(process)
            spent = _threads(process.pid)
            peak = _peak(process.pid)
        except (psutil.Error, OSError, StopIteration):  # it has just ended
            continue
        total = sum(spent)
        found.cpu[role] += total
        found.overhead[role] += total - sum(sorted(spent)[-threads:]) if role in ENGINES else total
        found.memory[role] = max(found.memory.get(role, 0), peak)
    return found


def _family(driver: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(driver)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _role(process: psutil.Process) -> str:
    command = process.cmdline()
    title = command[0] if command else ""
    named = next((role for start, role in ACTORS.items() if title.startswith(start)), None)
    if named:
        return named
    program = title.rpartition("/")[2].split(" ")[0]
    return {"raylet": "raylet", "gcs_server": "gcs"}.get(program, "other of Ray's")


def _threads(pid: int) -> list[float]:
    """CPU-seconds of each thread that lives; of an engine's process none ends that has worked."""
    seconds = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        seconds.append((int(fields[11]) + int(fields[12])) / TICKS)
    return seconds


def _peak(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
