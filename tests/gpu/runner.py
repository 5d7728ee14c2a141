"""Runs checks one after the other, each in a process of its own, and stops at nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gpu.check import Check, Figure, Outcome

ROOT = Path(__file__).parents[2]
TAIL = 3000  # characters of a failed check's log that its row keeps
GRACE = 15.0  # seconds for a process that is told to end


@dataclass(frozen=True, kw_only=True)
class Row:
    check: str
    outcome: Outcome
    why: str = ""
    seconds: float = 0.0
    figures: list[Figure] = field(default_factory=list)
    log: str = ""  # the end of a failed check's output


def environment(kit: Path | None) -> dict[str, str]:
    """For checks and all that they start: this checkout first, then the kit's packages, then the machine's own."""
    paths = [str(ROOT), *([str(kit)] if kit else []), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": os.pathsep.join(paths)}


def run(check: Check, *, device: str, small: bool, logs: Path, environment: dict[str, str]) -> Row:
    """Wait for the check, no longer than it may take."""
    logs.mkdir(parents=True, exist_ok=True)
    record, log = logs / f"{check.name}.jsonl", logs / f"{check.name}.log"
    record.write_text("")
    command = [sys.executable, "-m", "tests.gpu.process", check.name, "--record", str(record), "--device", device]
    command += ["--parent", str(os.getpid()), *(["--small"] if small else [])]
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(check.seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    seconds = time.monotonic() - started
    figures, outcome, why = _read(record)
    if outcome is None:
        outcome = "failed"
        why = f"no end within {check.seconds:g} s" if code is None else f"its process ended with code {code}"
    tail = log.read_text(errors="replace")[-TAIL:] if outcome == "failed" else ""
    return Row(check=check.name, outcome=outcome, why=why, seconds=seconds, figures=figures, log=tail)


def _read(record: Path) -> tuple[list[Figure], Outcome | None, str]:
    lines: list[dict[str, Any]] = [json.loads(line) for line in record.read_text().splitlines()]
    figures = [Figure(**line["figure"]) for line in lines if "figure" in line]
    last = next((line for line in lines if "outcome" in line), None)
    return (figures, None, "") if last is None else (figures, last["outcome"], last["why"])


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process, and what it left in its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
            if number == signal.SIGTERM and not _alive(process.pid):
                return


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
