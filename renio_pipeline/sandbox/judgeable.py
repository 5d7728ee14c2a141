"""Refuses tests that right programs would fail too.

What cannot be judged is a fault of the row, with the reason. Program and tests have an interpreter and a file system each, so
that tests cannot look into the program's source, replace what it calls, or leave files for it.
"""

from __future__ import annotations

import ast
import re
import sys
import sysconfig
from collections.abc import Collection, Iterable
from importlib.machinery import PathFinder

_OWN = "which has an interpreter of its own"
_MODULES = {
    "tempfile": "use files", "shutil": "use files", "pathlib": "use files", "glob": "use files",
    "inspect": "look into the program", "dis": "look into the program", "subprocess": "start the program",
    "importlib": "load the program", "runpy": "start the program",
}  # fmt: skip
_OS_FILES = ("remove", "unlink", "listdir", "makedirs", "mkdir", "rmdir", "walk", "path", "scandir", "stat", "open")
_PATCHES = ("patch", "patch.object", "patch.dict", "mock.patch", "mock.patch.object", "mock.patch.dict", "monkeypatch.setattr")
# By program and tests, which may patch these.
_SHARED = ("builtins.input", "builtins.print", "sys.stdin", "sys.stdout", "sys.stderr")
_WATCHES = ("warns", "deprecated_call", "catch_warnings", "assertWarns", "assertWarnsRegex", "assertLogs", "assertNoLogs")
_HIDDEN = ("__code__", "__globals__", "__closure__", "__defaults__", "__annotations__", "__dict__", "__wrapped__", "__mro__")


def refuse_imports(tree: ast.Module, *, stars: bool, of_program: Collection[str]) -> None:
    """Raises ValueError for imports that fail. With ``stars``, names of the program might come from a star import instead.
    Modules ``of_program`` stand for it."""
    nodes = list(ast.walk(tree))
    guarded = {inner for node in nodes if isinstance(node, ast.Try) for inner in ast.walk(node)}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and stars and node.names[0].name == "*" and node.module not in of_program:
            raise ValueError(f"tests import * from {node.module}; import the names that they need")
        if isinstance(node, ast.Import | ast.ImportFrom) and node not in guarded:
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            modules = [module for module in modules if module not in of_program]
            if missing := [m for m in modules if getattr(node, "level", 0) or not exists(m.split(".")[0])]:
                raise ValueError(f"tests import {missing[0] or 'a neighbour'}, which is not installed")


def refuse_uses(tree: ast.Module, live: Iterable[ast.AST], names: Iterable[str], problem: str) -> None:
    """Raises ValueError for tests that need one interpreter or one file system with the program.

    Args:
        live: what runs when the tests run.
        names: what the tests use from the program.
        problem: the text that says what the program is to have.
    """
    modules = _imported(tree)
    nodes, wanted = list(live), set(names)
    _refuse_foreign_namespaces(nodes, wanted, problem)
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                if isinstance(base, ast.Name) and base.id in wanted:
                    raise ValueError(f"tests derive {node.name} from the program's {base.id}, {_OWN}")
        elif isinstance(node, ast.Attribute) and node.attr in _HIDDEN and isinstance(node.value, ast.Name):
            if node.value.id in wanted:
                raise ValueError(f"tests look into the program ({ast.unparse(node)}), {_OWN}")
        elif isinstance(node, ast.Name) and modules.get(node.id, "").split(".")[0] in _MODULES:
            what = _MODULES[modules[node.id].split(".")[0]]
            raise ValueError(f"tests {what} ({modules[node.id]}), {_OWN}{' and files' if 'file' in what else ''}")
        elif isinstance(node, ast.Call):
            _refuse_call(node, modules)


def _refuse_call(node: ast.Call, modules: dict[str, str]) -> None:
    function = ast.unparse(node.func)
    first = function.split(".")[0]
    if function == "open" or (modules.get(first) == "os" and function.split(".")[-1] in _OS_FILES):
        raise ValueError(f"tests use files ({function}), but the program has files of its own")
    if function.split(".")[-1] in _WATCHES:
        raise ValueError(f"tests look for warnings or logs ({function}) of the program, {_OWN}")
    if function in _PATCHES or function.endswith(".patch.object") or function.endswith("monkeypatch.setattr"):
        target = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        if target not in _SHARED and not (function.endswith("dict") and target is None):
            raise ValueError(f"tests replace {target or ast.unparse(node)!s:.60} for the program, {_OWN}")


def _refuse_foreign_namespaces(nodes: list[ast.AST], names: set[str], problem: str) -> None:
    """``solution.f(1)`` where nobody says that the program has a ``solution``. Not ``f.cache`` where ``f`` is called as
    well."""
    attributes = [n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)]
    bases = {id(n.value) for n in attributes}
    alone = {n.id for n in nodes if isinstance(n, ast.Name) and id(n) not in bases}
    for node in attributes:
        name = node.value.id  # type: ignore[attr-defined]
        if name in names - alone and name[:1].islower() and not re.search(rf"\b{name}\b", problem):
            raise ValueError(f"tests use {name}.{node.attr}, but nothing says that the program has a {name}")


def _imported(tree: ast.Module) -> dict[str, str]:
    """The module, or the module and name, that each imported name stands for."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(a.asname or a.name).split(".")[0]: a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def exists(module: str) -> bool:
    """Whether a box has a module of this name."""
    packages = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]  # those that a box sees
    return module in sys.stdlib_module_names or PathFinder.find_spec(module, packages) is not None
