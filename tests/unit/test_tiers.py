"""The unit tests are cheap: none imports Ray, an engine or an actor, itself or from the tests of another tier."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FILES = sorted(Path(__file__).parent.rglob("*.py"))
ELSEWHERE = (
    "actors", "ray", "vllm", "deepspeed",
    "tests.actors", "tests.async_engine", "tests.contracts", "tests.ray", "tests.fakes.receivers", "tests.fakes.replicas",
)  # fmt: skip


def imports(path: Path) -> set[str]:
    """The modules that a file imports anywhere, and with them what it takes from them, which may be a module too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{name.name}" for name in node.names)}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_unit_test_imports_neither_ray_nor_actors_nor_an_engine(path: Path) -> None:
    assert {name for name in imports(path) if f"{name}.".startswith(tuple(f"{part}." for part in ELSEWHERE))} == set()
