"""What a problem's own text defines, if it is Python: a prompt to complete, with what belongs to it."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Collection, Iterable

_GIVEN = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
_DEFINITION = re.compile(r"^([ \t]*)(?:async )?def (\w+)\(", re.MULTILINE)
_SOLUTION = re.compile(r"^class Solution\b", re.MULTILINE)


def definitions(problem: str) -> list[str]:
    """The imports, functions, classes and constants of the text."""
    return [ast.unparse(node) for node in _body(problem)]


def last_function(problem: str) -> str | None:
    """The function that a problem asks for: its last, or the last method of a class Solution after all functions."""
    found = [(d.start(), not d[1], d[2]) for d in _DEFINITION.finditer(problem)]
    whole = [(at, name) for at, top, name in found if top]
    solution = _SOLUTION.search(problem)
    if not whole or (solution is not None and solution.start() > whole[-1][0]):
        whole = [(at, name) for at, _, name in found if name[0] != "_"] or whole
    return whole[-1][1] if whole else None


def full_functions(problem: str) -> set[str]:
    """The names of the functions that the text does not leave to be written."""
    return {node.name for node in _body(problem) if isinstance(node, _FUNCTION) and _is_full(node)}


def helpers(problem: str, entry: str, names: Collection[str]) -> str:
    """Those of the named functions which the text defines in full, with what they use: tests have them from the text, so that
    no program can replace what judges it. Not those that need the entry, or a class, which program and tests share."""
    known = {name: node for node in _body(problem) for name in _names(node)}
    kept: dict[ast.stmt, None] = {}
    for name in names:
        waiting, needed = [name], dict[ast.stmt, None]()
        while waiting:
            node = known.get(waiting.pop())
            if node is not None and node not in needed:
                needed[node] = None
                waiting += [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
        functions = [node for node in needed if isinstance(node, _FUNCTION)]
        whole = all(node.name != entry and _is_full(node) for node in functions)
        if functions and whole and not any(isinstance(node, ast.ClassDef) for node in needed):
            kept |= needed
    return "\n".join(ast.unparse(node) for node in dict.fromkeys(known.values()) if node in kept)


def _body(problem: str) -> list[ast.stmt]:
    try:
        with warnings.catch_warnings(action="ignore"):
            return [node for node in ast.parse(problem).body if isinstance(node, _GIVEN)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _names(node: ast.stmt) -> Iterable[str]:
    """What a definition defines."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return [node.name] if isinstance(node, _FUNCTION | ast.ClassDef) else []


def _is_full(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return not all(map(_is_open, function.body))


def _is_open(statement: ast.stmt) -> bool:
    """Whether a statement stands where a body is to be written: a docstring, ``...``, ``pass``, an error that says so."""
    if isinstance(statement, ast.Raise):
        return "NotImplemented" in ast.unparse(statement)
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, ast.Pass) or (isinstance(statement, ast.Return) and statement.value is None)
