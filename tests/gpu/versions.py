"""What the checks ran on: `python -m tests.gpu.versions DEVICE` prints it as JSON."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path

PACKAGES = ("vllm", "deepspeed", "ray", "transformers")
ABSENT = "not installed"


def machine(device: str) -> dict[str, str]:
    """Names and versions, in the order of a table's heading."""
    found = {"device": _cpu() if device == "cpu" else "none", "driver": "none", "CUDA": "none", "torch": ABSENT}
    try:
        import torch
    except ImportError:
        pass
    else:
        found |= {"torch": torch.__version__, "CUDA": torch.version.cuda or "none"}
        if device == "cuda" and torch.cuda.is_available():
            found |= {"device": torch.cuda.get_device_name(), "driver": _driver()}
    return found | {name: _version(name) for name in PACKAGES} | {"Python": platform.python_version()}


def _version(name: str) -> str:
    for package in (name, f"{name}-cpu"):
        try:
            return importlib.metadata.version(package) + ("" if package == name else " (CPU)")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ABSENT


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown: nvidia-smi gave none"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"CPU ({model})"


if __name__ == "__main__":
    print(json.dumps(machine(sys.argv[1])))
