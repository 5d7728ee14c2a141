"""Reads tests that are a Python program of asserts: what they use from the program under test, and what of them runs."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable
from typing import Any

from renio_pipeline.sandbox import assumed, judgeable

_DEFINITION = re.compile(r"^(?:async )?def (\w+)\(", re.MULTILINE)
_INDENTED = re.compile(r"^[ \t]+(?:async )?def ([^\W_]\w*)\(", re.MULTILINE)
_Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def read_program(code: Any, entry: str | None, problem: str) -> dict[str, Any]:
    """The fields of ``Tests`` for a program of asserts. Raises ValueError and SyntaxError, see ``read_tests``."""
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
    stars = any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree))
    names = [] if check and stars else unknown_names(tree, live)
    names = [n for n in names if not _is_assumed_module(n, live)]
    if check and entry and entry not in names and entry not in named:
        names = sorted([*names, entry])
    judgeable.refuse_imports(tree, stars=stars and not check)
    judgeable.refuse_uses(tree, live, names, problem)
    if not (names or check) or not any(map(_can_fail, live)):
        raise ValueError(f"tests {'assert nothing' if names else 'call no function of the program'}: every program would pass")
    lends = tuple(sorted(named.keys() - set(runs) - {"check"}))
    return {
        "asserts": code, "names": tuple(names), "runs": tuple(runs), "check": check, "lends": lends,
        "entry": entry if check else None,
    }  # fmt: skip


def _is_assumed_module(name: str, live: Iterable[ast.AST]) -> bool:
    """Whether tests use ``math`` and the like without importing it: only ever as ``math.something``."""
    used = [n.value.id for n in live if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)]
    return assumed.is_module(name) and name in used


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
