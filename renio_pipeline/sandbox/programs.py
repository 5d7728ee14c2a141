"""What the child of a job runs: a script, a program whose functions others call, or tests that call them.

Program and tests never share an interpreter. The tests run in a box of their own, where each function of the program is a
``Remote``: arguments go and results come as plain data (see ``wire``), over a socket that carries nothing else. All that a
program can forge is therefore its own results; it has neither the expected values nor the place where the verdict is written.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from renio_pipeline.sandbox import wire

PASSED = "passed"
CALLS, VERDICT = 3, 4  # file descriptors


class RemoteError(Exception):
    """The program raised what is no exception of the standard library, or returned what is no plain data."""


def script(job: dict[str, Any], _calls: int) -> None:
    """Run a whole program, as if it were started by hand."""
    namespace = sys.modules["__main__"].__dict__  # where pickle, dataclasses and the like look names up
    exec(compile(job["code"], "program.py", "exec"), namespace)
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()  # waits for the program's threads, as an interpreter does at its end


def functions(job: dict[str, Any], calls: int) -> None:
    """Define a program's functions, say so, and answer calls until the caller hangs up."""
    namespace: dict[str, Any] = {"__name__": "program", "__builtins__": builtins}
    with open(calls, "rb", closefd=False) as incoming, open(calls, "wb", closefd=False) as outgoing:
        exec(compile(job["code"], "program.py", "exec"), namespace)
        _say(outgoing, {"defined": [name for name, value in namespace.items() if callable(value)]})
        for line in incoming:
            call = wire.loads(line)
            _say(outgoing, _answer(_function(namespace, call["name"]), call["args"], call["kwargs"]))


def _function(namespace: dict[str, Any], name: str) -> Callable[..., Any]:
    """A function of the program, or the method of its class Solution."""
    if name in namespace or "Solution" not in namespace:
        return namespace[name]
    return getattr(namespace["Solution"](), name)


def _answer(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        value = function(*args, **kwargs)
        wire.dumps(value)
    except Exception as error:
        return {"raised": next(c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins"), "text": str(error)[:500]}
    return {"value": value, "args": [a if isinstance(a, list | dict | set) else None for a in args]}


def _say(outgoing: BinaryIO, message: Any) -> None:
    outgoing.write(wire.dumps(message))
    outgoing.flush()


class Remote:
    """A function of the program, as the tests see it. Lists, dicts and sets that it changes in place are changed here too."""

    def __init__(self, name: str, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self.__name__ = name
        self._incoming, self._outgoing = incoming, outgoing

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _say(self._outgoing, {"name": self.__name__, "args": list(args), "kwargs": kwargs})
        answer = wire.loads(self._incoming.readline())
        if "raised" in answer:
            kind: Any = getattr(builtins, str(answer["raised"]), None)
            usual = isinstance(kind, type) and issubclass(kind, Exception) and kind not in (Exception, AssertionError)
            raise (kind if usual else RemoteError)(str(answer["text"]))
        for mine, theirs in zip(args, answer["args"], strict=True):
            if isinstance(mine, list) and isinstance(theirs, list):
                mine[:] = theirs
            elif (isinstance(mine, dict) and isinstance(theirs, dict)) or (isinstance(mine, set) and isinstance(theirs, set)):
                mine.clear()
                mine.update(theirs)
        return answer["value"]


def tests(job: dict[str, Any], calls: int) -> None:
    """Run asserts, or a program that defines ``check``, over another box's functions; write the verdict at the very end."""
    code, entry = job["code"], job["entry"]
    with open(calls, "rb", closefd=False) as incoming, open(calls, "wb", closefd=False) as outgoing:
        defined = wire.loads(incoming.readline())["defined"]
        remote = {name: Remote(name, incoming, outgoing) for name in ([entry] if entry else unknown_names(code))}
        assert entry or remote.keys() <= set(defined), "the program lacks a function that the tests call"
        namespace: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins, **remote}
        exec(compile(code, "tests.py", "exec"), namespace)
        if entry and "check" in namespace:
            namespace["check"](remote[entry])
    with contextlib.closing(open(VERDICT, "w")) as verdict:
        verdict.write(PASSED)


def unknown_names(code: str) -> list[str]:
    """Names that tests use, neither define nor import, and the language lacks: the functions under test.

    No name beyond these is taken from the program: one of its own ``all`` or ``isclose`` must not stand in for the real one.
    """
    nodes = list(ast.walk(ast.parse(code)))
    names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    known = set(dir(builtins)) | {"__name__"}
    known |= {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    known |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    known |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    known |= {n.name for n in nodes if isinstance(n, ast.ExceptHandler) and n.name}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            known |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return sorted(names - known)
