"""Text files are read and written in UTF-8, whatever the locale is: a container's is often POSIX, whose text is ASCII."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = sorted([*ROOT.glob("renio_pipeline/**/*.py"), *ROOT.glob("actors/**/*.py")])
STARTERS = {"run", "Popen", "check_output", "check_call", "call"}  # of subprocess
OPENERS = {"open": 1, "fdopen": 1, "NamedTemporaryFile": 0, "TemporaryFile": 0}  # the mode's position in a function's arguments
NO_FILES = {
    "workers",
    "payload",
    "_sender",
    "sender",
    "self",
    "os",
    "Interval",
    "each",
    "_servers",
}  # whose ``open`` opens no text


def without_encoding(tree: ast.AST) -> Iterator[int]:
    """The lines of calls that open text, and leave its encoding to the locale."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_text(node) and not any(k.arg in ("encoding", None) for k in node.keywords):
            yield node.lineno


def _is_text(call: ast.Call) -> bool:
    method = isinstance(call.func, ast.Attribute)
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = getattr(call.func, "value", None)
    said = {k.arg: k.value for k in call.keywords}
    if name in ("read_text", "write_text"):
        return len(call.args) < (1 if name == "read_text" else 2)
    if name in STARTERS:
        return any(getattr(said.get(key), "value", False) is True for key in ("text", "universal_newlines"))
    if name not in OPENERS or (name == "open" and getattr(owner, "id", getattr(owner, "attr", "")) in NO_FILES):
        return False
    position = OPENERS[name] - (name == "open" and method)
    given = call.args[position] if len(call.args) > position else said.get("mode")
    if given is None:
        return "Temporary" not in name  # whose mode is binary unless it is said
    return isinstance(given, ast.Constant) and "b" not in str(given.value)


def test_every_text_file_is_opened_with_its_encoding() -> None:
    assert len(SHIPPED) > 300
    found = {str(path.relative_to(ROOT)): list(without_encoding(ast.parse(path.read_bytes()))) for path in SHIPPED}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("open(p)", True), ("open(p, 'w')", True), ("open(p, mode='a')", True), ("p.open()", True), ("p.open('w')", True),
        ("p.read_text()", True), ("p.write_text(t)", True), ("os.fdopen(f, 'w')", True),
        ("tempfile.NamedTemporaryFile('w')", True), ("subprocess.run(c, text=True)", True),
        ("open(p, 'rb')", False), ("p.open('ab')", False), ("p.open(encoding='utf-8')", False), ("os.open(p, f)", False),
        ("p.read_text('utf-8')", False), ("p.write_text(t, encoding='utf-8')", False), ("os.fdopen(f, 'wb')", False),
        ("tempfile.NamedTemporaryFile()", False), ("subprocess.run(c)", False), ("open(p, **more)", False),
        ("os.fdopen(f, mode)", False), ("sympy.Interval.open(0, 1)", False),
    ],
)  # fmt: skip
def test_the_check_sees_every_way_to_open_text(code: str, found: bool) -> None:
    assert bool(list(without_encoding(ast.parse(code)))) is found
