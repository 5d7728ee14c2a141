"""Reads a row's tests and checks them before any program runs: tests that no program could fail, or pass, are refused."""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import re
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from typing import Any

_DEFINITION = re.compile(r"^(?:async )?def (\w+)\(", re.MULTILINE)
_INDENTED = re.compile(r"^[ \t]+(?:async )?def ([^\W_]\w*)\(", re.MULTILINE)
_Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Tests:
    """Either ``asserts`` or ``cases``."""

    asserts: str | None = None  # a Python program
    names: tuple[str, ...] = ()  # what the asserts use from the program under test
    runs: tuple[str, ...] = ()  # functions of the asserts that are tests by name and called by nobody
    check: bool = False  # whether to call the asserts' ``check`` with ``entry``
    entry: str | None = None  # the function under test, if it is named or called by cases
    cases: tuple[tuple[Any, Any], ...] = ()  # input and output text; with ``entry``, arguments and all correct results


def read_tests(text: str, problem: str = "") -> Tests:
    """Parse a row's tests: a Python program, or JSON with ``inputs`` and ``outputs`` (with ``fn_name``: arguments and results).

    A test program that defines ``check(candidate)`` without calling it tests the last function that the problem's text defines.

    Raises:
        ValueError: the text is neither, or calls no function of the program, or no program could satisfy it.
        SyntaxError: the test program is not valid Python.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = {"program": text}
    if not isinstance(found, dict) or not ("program" in found or {"inputs", "outputs"} <= found.keys()):
        raise ValueError('tests are neither a Python program nor JSON with "inputs" and "outputs"')
    entry = found.get("fn_name") or None
    if entry is not None and not (isinstance(entry, str) and entry.isidentifier()):
        raise ValueError(f'"fn_name" is {entry!r}; expected the name of a function')
    if "program" in found:
        return _program(found["program"], entry, problem)
    inputs, outputs = found["inputs"], found["outputs"]
    if not (isinstance(inputs, list) and isinstance(outputs, list)):
        raise ValueError(f'"inputs" and "outputs" are {type(inputs).__name__} and {type(outputs).__name__}; expected lists')
    if not inputs or len(inputs) != len(outputs):
        raise ValueError(f"tests have {len(inputs)} inputs and {len(outputs)} outputs")
    read_in, read_out = (_arguments, _results) if entry else (_text, _text)
    return Tests(entry=entry, cases=tuple((read_in(i), read_out(o)) for i, o in zip(inputs, outputs, strict=True)))


def _text(value: Any) -> str:
    """Text, a number, or a list of them as lines."""
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, str | int | float) for part in parts):
        raise ValueError(f"{value!r:.100} among inputs and outputs; expected text, because there is no fn_name")
    return "\n".join(map(str, parts))


def _arguments(given: Any) -> list[Any]:
    """Arguments as a list, or as text with one JSON value per line."""
    if isinstance(given, list):
        return given
    try:
        return [json.loads(part) for part in given.splitlines()]
    except (ValueError, AttributeError):
        what = "a list of arguments, or text with one JSON value per line"
        raise ValueError(f"{given!r:.100} among inputs; expected {what}") from None


def _results(wanted: Any) -> list[Any]:
    """All accepted forms of a result: published tests wrap some results in text or in a list of one, and others not."""
    results = [wanted]
    if isinstance(wanted, str):
        with contextlib.suppress(ValueError):  # then it is plain text
            results.append(json.loads(wanted))
    return results + [found[0] for found in results if isinstance(found, list) and len(found) == 1]


def _program(code: Any, entry: str | None, problem: str) -> Tests:
    if not isinstance(code, str):
        raise ValueError(f'"program" is {type(code).__name__}; expected text')
    compile(code, "tests", "exec", dont_inherit=True)
    tree = ast.parse(code)
    named = {node.name: node for node in tree.body if isinstance(node, _Named)}
    loaded = _loaded(ast.walk(tree))
    check = "check" in named and "check" not in loaded
    if check and entry is None:
        entry = next(iter((_DEFINITION.findall(problem) or _INDENTED.findall(problem))[::-1]), None)
        if entry is None:
            raise ValueError("tests define check(candidate), and the problem defines no function that could be the candidate")
    runs = [n.name for n in named.values() if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    runs = [name for name in runs if name not in loaded]
    if wants := [name for name in runs if _required(named[name])]:
        raise ValueError(f"{wants[0]} of the tests takes arguments that nothing passes to it")
    live = _live(tree, named, [*runs, *(["check"] if check else [])])
    names = [entry] if check and entry else unknown_names(tree, live)
    _refuse_unusable(tree, names, stars=not check)
    if not names or not any(map(_can_fail, live)):
        raise ValueError(f"tests {'assert nothing' if names else 'call no function of the program'}: every program would pass")
    return Tests(asserts=code, names=tuple(names), runs=tuple(runs), check=check, entry=entry)


def _can_fail(node: ast.AST) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return isinstance(node, ast.Assert | ast.Raise) or any(
        word in name.lower() for word in ("assert", "fail", "exit", "raises")
    )


def _required(function: Any) -> bool:
    arguments = function.args
    return len(arguments.posonlyargs + arguments.args) > len(arguments.defaults) or None in arguments.kw_defaults


def _live(tree: ast.Module, named: dict[str, Any], roots: Iterable[str]) -> list[ast.AST]:
    """What runs when the tests run: the module's statements, whatever they or ``roots`` name, and unittests."""
    left = dict(named)
    cases = [
        n.name for n in named.values() if isinstance(n, ast.ClassDef) and any("TestCase" in ast.unparse(b) for b in n.bases)
    ]
    waiting: list[ast.AST] = [node for node in tree.body if not isinstance(node, _Named)]
    waiting += [left.pop(name) for name in {*roots, *cases}]
    found = []
    while waiting:
        for node in ast.walk(waiting.pop()):
            found.append(node)
            if isinstance(node, ast.Name) and node.id in left:
                waiting.append(left.pop(node.id))
    return found


def _loaded(nodes: Iterable[ast.AST]) -> set[str]:
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def unknown_names(tree: ast.Module, live: Iterable[ast.AST]) -> list[str]:
    """The functions under test: names that ``live`` uses and that are neither defined, nor imported, nor builtin.

    No other name is taken from the program: its own ``all`` or ``isclose`` must not replace the real one.
    """
    nodes = list(ast.walk(tree))
    known = set(dir(builtins)) | {"__name__"}
    known |= {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    known |= {n.name for n in nodes if isinstance(n, _Named)}
    known |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    known |= {n.name for n in nodes if isinstance(n, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and n.name}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            known |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return sorted(_loaded(live) - known)


def _refuse_unusable(tree: ast.Module, names: Iterable[str], *, stars: bool) -> None:
    """Raises ValueError for tests that would fail every program. With ``stars``, names may come from star imports."""
    nodes = list(ast.walk(tree))
    guarded = {inner for node in nodes if isinstance(node, ast.Try) for inner in ast.walk(node)}
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and not node.attr.startswith("__"):
            if node.value.id in names:
                raise ValueError(f"tests use {node.value.id}.{node.attr}, but they can only call the program's functions")
        elif isinstance(node, ast.ImportFrom) and stars and node.names[0].name == "*":
            raise ValueError(f"tests import * from {node.module}; import the names that they need")
        if isinstance(node, ast.Import | ast.ImportFrom) and node not in guarded:
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if missing := [m for m in modules if getattr(node, "level", 0) or not _exists(m.split(".")[0])]:
                raise ValueError(f"tests import {missing[0] or 'a neighbour'}, which is not installed")
    if "Solution" in names:
        raise ValueError("tests create an object of class Solution, but they can only call the program's functions")


def _exists(module: str) -> bool:
    packages = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]  # those that a box sees
    return module in sys.stdlib_module_names or PathFinder.find_spec(module, packages) is not None
