"""Reads tests that are a Python program of asserts: what they use from the program under test, and what of them runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import Any

from renio_pipeline.sandbox import given, judgeable, used


def read_program(code: Any, entry: str | None, problem: str) -> dict[str, Any]:
    """The fields of ``Tests`` for a program of asserts. Raises ValueError and SyntaxError, see ``read_tests``."""
    if not isinstance(code, str):
        raise ValueError(f'"program" is {type(code).__name__}; expected text')
    compile(code, "tests", "exec", dont_inherit=True)
    tree = ast.parse(code)
    named = {node.name: node for node in tree.body if isinstance(node, used.NAMED)}
    loaded = used.loaded(ast.walk(tree))
    check = "check" in named and "check" not in loaded
    if check and entry is None:
        entry = given.last_function(problem)
        if entry is None:
            raise ValueError("tests define check(candidate), and the problem defines no function that could be the candidate")
    runs = [n.name for n in named.values() if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    runs = [name for name in runs if name not in loaded]
    groups = [name for name in named if _is_group(named[name])]
    wanted = {argument for name in [*runs, *groups] for argument in _wanted(named[name])}
    if unknown := wanted - _passed(tree):
        raise ValueError(f"tests take {min(unknown)!r}, which nothing passes to them")
    collect = bool(groups or wanted)
    if collect and not judgeable.exists("pytest"):
        raise ValueError("tests need pytest, which is not installed")
    fixtures = [name for name in named if collect and _is_fixture(named[name])]
    live = _live(tree, named, [*runs, *groups, *fixtures, *(["check"] if check else [])])
    stars = any(
        isinstance(node, ast.ImportFrom) and node.names[0].name == "*" and not used.is_program(node.module or "")
        for node in ast.walk(tree)
    )
    modules, imported = used.of_program(tree)
    names = sorted({*imported, *([] if check and stars else used.unknown_names(tree, live))})
    names = [n for n in names if not used.is_assumed_module(n, live)]
    if not names and not check:
        names = used.named_like_builtins(live, problem)
    if check and entry and entry not in names and entry not in named:
        names = sorted([*names, entry])
    if check and entry and (own := given.helpers(problem, entry, names)):
        return read_program(_with(own, code, tree), entry, problem)
    judgeable.refuse_imports(tree, stars=stars and not check, of_program=modules)
    judgeable.refuse_uses(tree, live, names, problem)
    if not (names or check) or not any(map(_can_fail, live)):
        raise ValueError(f"tests {'assert nothing' if names else 'call no function of the program'}: every program would pass")
    classes = tuple(name for name in names if used.is_class(name, live, problem))
    return {
        "asserts": code, "names": tuple(names), "runs": tuple(runs), "check": check, "entry": entry if check else None,
        "classes": classes, "compared": tuple(name for name in classes if used.is_only_compared(name, live)),
        "assumable": tuple(name for name in names if name != entry and not re.search(rf"\b{name}\b", problem)),
        "fixed": tuple(sorted((given.full_functions(problem) & {*names}) - {entry})) if check else (),
        "modules": modules, "collect": collect,
        "lends": tuple(sorted(name for name in named if _is_lent(named[name], problem))),
    }  # fmt: skip


def _with(own: str, code: str, tree: ast.Module) -> str:
    """Tests after definitions of the problem, which stand after imports from the future."""
    future = [n.end_lineno for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    lines, at = code.splitlines(), max(filter(None, future), default=0)
    return "\n".join([*lines[:at], own, *lines[at:]])


def _is_lent(definition: Any, problem: str) -> bool:
    """Whether a program may use what the tests define: a class, such as a tree's nodes, or a function that the problem names.
    Other functions of tests may well be the solution."""
    return isinstance(definition, ast.ClassDef) or re.search(rf"\b{definition.name}\b", problem) is not None


def _can_fail(node: ast.AST) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return isinstance(node, ast.Assert | ast.Raise) or any(
        word in name.lower() for word in ("assert", "fail", "exit", "raises")
    )


def _is_group(definition: Any) -> bool:
    """Whether pytest collects tests from a class, which is no TestCase."""
    if not isinstance(definition, ast.ClassDef) or not definition.name.startswith("Test") or definition.bases:
        return False
    return any(isinstance(part, ast.FunctionDef) and part.name.startswith("test") for part in definition.body)


def _is_fixture(definition: Any) -> bool:
    return any("fixture" in ast.unparse(decorator) for decorator in definition.decorator_list)


def _wanted(test: Any) -> set[str]:
    """The arguments of a test, or of those of a class, that have no defaults."""
    if isinstance(test, ast.ClassDef):
        methods = [part for part in test.body if isinstance(part, ast.FunctionDef) and part.name.startswith("test")]
        return {name for method in methods for name in _wanted(method)} - {"self"}
    names = [argument.arg for argument in [*test.args.posonlyargs, *test.args.args]]
    more = [a.arg for a, default in zip(test.args.kwonlyargs, test.args.kw_defaults, strict=True) if default is None]
    return {*names[: len(names) - len(test.args.defaults)], *more}


def _passed(tree: ast.Module) -> set[str]:
    """The arguments that pytest passes: parameters, fixtures of the tests, and those of its own that need no files."""
    found = {"capsys", "monkeypatch", "request"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and _is_fixture(node):
            found.add(node.name)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("parametrize") and node.args:
            texts = [part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)]
            found |= {name.strip() for text in texts for name in str(text).split(",")}
    return found


def _live(tree: ast.Module, named: dict[str, Any], roots: Iterable[str]) -> list[ast.AST]:
    """What runs when the tests run: the module's statements, whatever they or ``roots`` name, and unittests."""
    left = dict(named)
    cases = [
        n.name for n in named.values() if isinstance(n, ast.ClassDef) and any("TestCase" in ast.unparse(b) for b in n.bases)
    ]
    waiting: list[ast.AST] = [node for node in tree.body if not isinstance(node, used.NAMED)]
    waiting += [left.pop(name) for name in {*roots, *cases}]
    found = []
    while waiting:
        for node in ast.walk(waiting.pop()):
            found.append(node)
            if isinstance(node, ast.Name) and node.id in left:
                waiting.append(left.pop(node.id))
    return found
