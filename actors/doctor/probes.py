"""What a process finds on its node. Runs there: the standard library alone, results as plain dictionaries."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import resource
import runpy
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SECONDS = 30.0  # for nvidia-smi, which is slow where its driver is not kept loaded
VARIABLES = ("CUDA_VISIBLE_DEVICES", "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES")


def software(names: Sequence[str]) -> dict[str, Any]:
    """The fields of ``facts.Software``. Imports none of the packages."""
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), "packages": versions, "torch_cuda": torch_cuda(), "code": code_digest()}


def torch_cuda() -> str | None:
    """The CUDA version that torch was built for, from the file that says so: importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    return runpy.run_path(str(file)).get("cuda") if file and file.is_file() else None


def code_digest() -> str | None:
    """A digest of this project's source files; None if it cannot be imported. Two checkouts may have the same version."""
    digest = hashlib.sha256()
    for package in ("actors", "renio_pipeline"):
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            return None
        folder = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:10]


def machine() -> dict[str, Any]:
    """The fields of ``facts.Machine``, but with nvidia-smi's report as text (``nvidia_smi``) for ``driver``."""
    try:
        status = os.statvfs("/dev/shm")
        shm = status.f_frsize * status.f_blocks
    except OSError:
        shm = None
    report, error = nvidia_smi()
    return {
        "host": socket.gethostname(), "shm": shm, "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "ports": port_range(), "nvidia_smi": report, "driver_error": error,
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }  # fmt: skip


def port_range() -> tuple[int, int] | None:
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    return int(first), int(last)


def nvidia_smi() -> tuple[str | None, str]:
    """Its report as XML, or why there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None, "nvidia-smi is not on the PATH"
    try:
        done = subprocess.run(
            [tool, "-q", "-x"], capture_output=True, encoding="utf-8", errors="replace", timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"nvidia-smi failed: {error}"
    if done.returncode:
        return None, f"nvidia-smi failed: {(done.stdout + done.stderr).strip()[:200]}"
    return done.stdout, ""
