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
    return {
        "asserts": code, "names": tuple(names), "runs": tuple(runs), "check": check, "entry": entry if check else None,
        "classes": tuple(name for name in names if _is_class(name, live, problem)),
        "assumable": tuple(name for name in names if name != entry and not re.search(rf"\b{name}\b", problem)),
        "lends": tuple(sorted(name for name in named if _is_lent(named[name], problem))),
    }  # fmt: skip


def _is_class(name: str, live: Iterable[ast.AST], problem: str) -> bool:
    """Whether a name of the program is a class: it is written like one, or the problem or a test says so."""
    asked = (
        node.args[1] for node in live if isinstance(node, ast.Call) and len(node.args) == 2
        and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "issubclass")
    )  # fmt: skip
    asks = any(isinstance(part, ast.Name) and part.id == name for kinds in asked for part in ast.walk(kinds))
    return name[:1].isupper() or asks or re.search(rf"\bclass {name}\b", problem) is not None


def _is_lent(definition: Any, problem: str) -> bool:
    """Whether a program may use what the tests define: a class, such as a tree's nodes, or a function that the problem names.
    Other functions of tests may well be the solution."""
    return isinstance(definition, ast.ClassDef) or re.search(rf"\b{definition.name}\b", problem) is not None


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
