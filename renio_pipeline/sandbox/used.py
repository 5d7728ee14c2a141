"""What tests use of the program under test: names, which of them are classes, and modules that stand for it."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable

from renio_pipeline.sandbox import assumed, judgeable

NAMED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
# Modules that stand for the program in published tests, unless there is such a module.
_PROGRAM = ("solution", "solutions", "main", "program", "submission", "your_module", "my_module")


def unknown_names(tree: ast.Module, live: Iterable[ast.AST]) -> list[str]:
    """The functions under test: names that ``live`` uses and that are neither defined, nor imported, nor builtin.

    No other name is taken from the program: its own ``all`` or ``isclose`` must not replace the real one.
    """
    nodes = list(ast.walk(tree))
    known = set(dir(builtins)) | {"__name__"}
    known |= {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    known |= {n.name for n in nodes if isinstance(n, NAMED)}
    known |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    known |= {n.name for n in nodes if isinstance(n, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and n.name}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            known |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return sorted(loaded(live) - known)


def named_like_builtins(live: Iterable[ast.AST], problem: str) -> list[str]:
    """The builtins that ``live`` calls and that the problem calls too.

    With no other function to test, they are the program's, as in MBPP's ``sum(10, 15)``.
    """
    called = {node.func.id for node in live if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return sorted(name for name in called & set(dir(builtins)) if re.search(rf"\b{name}\s*\(", problem))


def loaded(nodes: Iterable[ast.AST]) -> set[str]:
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def of_program(tree: ast.Module) -> tuple[tuple[str, ...], set[str]]:
    """The modules that tests import and that stand for the program, and the names that they use of those."""
    modules, names, aliases = set(), set[str](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and is_program(node.module or ""):
            modules.add(node.module or "")
            names |= {alias.name for alias in node.names} - {"*"}
        elif isinstance(node, ast.Import) and (found := [alias for alias in node.names if is_program(alias.name)]):
            modules |= {alias.name for alias in found}
            aliases |= {alias.asname or alias.name for alias in found}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            names.add(node.attr)
    return tuple(sorted(modules)), names


def is_program(module: str) -> bool:
    return module in _PROGRAM and not judgeable.exists(module)


def is_assumed_module(name: str, live: Iterable[ast.AST]) -> bool:
    """Whether tests use ``math`` and the like without importing it: only ever as ``math.something``."""
    used = [n.value.id for n in live if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)]
    return assumed.is_module(name) and name in used


def is_class(name: str, live: Iterable[ast.AST], problem: str) -> bool:
    """Whether a name of the program is a class: it is written like one, or the problem or a test says so."""
    asked = (
        node.args[1] for node in live if isinstance(node, ast.Call) and len(node.args) == 2
        and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "issubclass")
    )  # fmt: skip
    asks = any(isinstance(part, ast.Name) and part.id == name for kinds in asked for part in ast.walk(kinds))
    return name[:1].isupper() or asks or re.search(rf"\bclass {name}\b", problem) is not None


def is_only_compared(name: str, live: Iterable[ast.AST]) -> bool:
    """Whether tests only ever call a name and compare what it returns with constants, as they would a function's results."""
    nodes = list(live)
    parents = {child: node for node in nodes for child in ast.iter_child_nodes(node)}
    return all(_is_compared(node, parents) for node in nodes if isinstance(node, ast.Name) and node.id == name)


def _is_compared(use: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether a use is a call whose value is asserted or compared with constants, perhaps after a calculation with others."""
    node = parents.get(use)
    if not (isinstance(node, ast.Call) and node.func is use):
        return False
    while (parent := parents.get(node)) is not None:
        if isinstance(parent, ast.Assert):
            return True
        called = parent.func if isinstance(parent, ast.Call) else None
        others = [part for part in ast.iter_child_nodes(parent) if part is not node and part is not called]
        if not isinstance(parent, ast.BoolOp) and not all(map(_is_constant, others)):
            return False
        if called is not None and ast.unparse(called).startswith("self.assert"):
            return True
        calculates = isinstance(parent, ast.BinOp | ast.UnaryOp | ast.BoolOp | ast.Compare)
        if not calculates and (called is None or called is node or not _is_constant(called)):
            return False
        node = parent
    return False


def _is_constant(node: ast.AST) -> bool:
    """Whether no name is in it but builtins and mathematics."""
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return names <= {*dir(builtins), "math", "np", "numpy", "pytest"}
