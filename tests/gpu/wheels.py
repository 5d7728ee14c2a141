"""Which wheels a kit holds, in which versions, and which of their files; and how they are fetched from the package registry."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements-cpu.lock"

# What an image with torch, transformers and the usual scientific packages lacks of the needs of vLLM, Ray, DeepSpeed and this
# project, without what these import only for servers, structured output and models with pictures.
PACKAGES = (
    "aiohttp-cors", "annotated-types", "antlr4-python3-runtime", "apache-tvm-ffi", "astor", "blake3", "cachetools", "cbor2",
    "colorful", "compressed-tensors", "depyf", "dill", "fastapi", "hjson", "httpcore2", "httpx2", "jiter", "jsonschema",
    "jsonschema-specifications", "llguidance", "loguru", "msgspec", "omegaconf", "openai", "opencensus", "opencensus-context",
    "oss-harmony", "partial-json-parser", "peft", "psutil", "pybase64", "pydantic", "pydantic-core", "pyzmq", "ray",
    "referencing", "rpds-py", "setproctitle", "sniffio", "starlette", "truststore", "typing-inspection", "xgrammar",
)  # fmt: skip
FROM_SOURCE = ("deepspeed",)  # published without a wheel; pure Python, so that a wheel made here runs anywhere
# vLLM's compiled modules that a kit holds: its kernels, the allocator of its sleep mode, two small helpers and, of its
# attentions, Hopper's. That of older GPUs is much larger; a mixture of experts needs _moe_C_stable_libtorch too.
LIBRARIES = ("_C_stable_libtorch", "_vllm_fa3_C", "cumem_allocator", "spinloop", "fs_io_C")
DATA = (".py", ".json", ".jinja", ".typed")
NOT_OF_RAY = ("ray/jars/", "ray/rllib/", "ray/dashboard/client/")  # Java, another library, the dashboard's page


@dataclass(frozen=True, kw_only=True)
class Target:
    """The machine that the kit is for."""

    python: str  # "3.12"
    machine: str  # "x86_64"
    glibc: int = 39  # the newest minor version 2.x that its manylinux wheels may ask for

    def options(self) -> list[str]:
        """Of `pip download`."""
        platforms = [f"manylinux_2_{minor}_{self.machine}" for minor in range(self.glibc, 4, -1)]
        platforms += [f"manylinux{name}_{self.machine}" for name in ("2014", "2010", "1")]
        given = ["--no-deps", "--only-binary=:all:", "--python-version", self.python, "--implementation", "cp"]
        return given + [option for platform in platforms for option in ("--platform", platform)]


def fetch(requirements: list[str], target: Target, folder: Path) -> list[Path]:
    """Download wheels, each for itself, without what it requires. Raises CalledProcessError; pip has said why."""
    folder.mkdir(parents=True, exist_ok=True)
    if requirements:
        _pip("download", *target.options(), "--dest", str(folder), *requirements)
    return [_wheel_of(requirement, folder) for requirement in requirements]


def make(requirement: str, folder: Path) -> Path:
    """Make a wheel of a source distribution. Raises ValueError if it is for this machine alone."""
    folder.mkdir(parents=True, exist_ok=True)
    name = requirement.partition("==")[0]
    _pip("wheel", "--no-deps", "--no-build-isolation", "--no-binary", name, "--wheel-dir", str(folder), requirement)
    wheel = _wheel_of(requirement, folder)
    if not wheel.stem.endswith("-none-any"):
        raise ValueError(f"{wheel.name}, made of {requirement}'s source, runs on machines like this one alone")
    return wheel


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)


def _wheel_of(requirement: str, folder: Path) -> Path:
    name, _, version = requirement.partition("==")
    wanted = (normal(name), version)
    found = [path for path in folder.glob("*.whl") if (normal(path.name.split("-")[0]), path.name.split("-")[1]) == wanted]
    if len(found) != 1:
        raise ValueError(f"{folder} holds {len(found)} wheels of {requirement} instead of one: empty it")
    return found[0]


def pinned(vllm_wheel: Path) -> dict[str, str]:
    """Versions by name: those of the lock list, and those that vLLM's wheel fixes in their place."""
    versions = dict(line.split("==") for line in LOCK.read_text().splitlines() if "==" in line and not line.startswith("#"))
    with zipfile.ZipFile(vllm_wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        for line in archive.read(metadata).decode().splitlines():
            found = re.fullmatch(r"Requires-Dist: ([\w.-]+)==([\w.]+)(;.*(?:'|\")x86_64.*)?", line)
            if found:
                versions[normal(found[1])] = found[2]
    return {normal(name): version for name, version in versions.items()}


def normal(name: str) -> str:
    """
    >>> normal("Pydantic_Core")
    'pydantic-core'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def of_vllm(libraries: tuple[str, ...]) -> Callable[[str], bool]:
    """Which files of vLLM's wheel a kit holds: its Python and data, and these compiled modules."""

    def wanted(path: str) -> bool:
        name = path.rpartition("/")[2]
        return path.endswith(DATA) or ".dist-info/" in path or (".so" in name and name.split(".")[0] in libraries)

    return wanted


def of_ray(path: str) -> bool:
    """Which files of Ray's wheel a kit holds."""
    return not path.startswith(NOT_OF_RAY)
