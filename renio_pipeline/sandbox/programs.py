"""What the child of a job runs: a script, a program whose functions are called from outside, or tests that call them.

Program and tests never share an interpreter. The tests run in a separate box, where each function of the program is a
``Remote``: arguments and results cross as plain data (see ``wire``), over a socket that carries nothing else. A program can
therefore forge only its own results; it reaches neither the expected values nor the descriptor of the verdict.
"""

from __future__ import annotations

import builtins
import contextlib
import sys
import types
from collections.abc import Callable
from typing import Any, BinaryIO

from renio_pipeline.sandbox import wire

PASSED = "passed"
CALLS, VERDICT = 3, 4  # file descriptors
_NEVER_RAISED = (Exception, AssertionError, StopIteration, StopAsyncIteration)


class RemoteError(Exception):
    """The program raised an exception from outside the standard library, or returned something other than plain data."""


def script(job: dict[str, Any], _calls: int) -> None:
    """Run a whole program, as if it were started from the command line."""
    _execute(job["code"], _module("__main__"), "program.py")
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()  # waits for the program's threads, as an interpreter does on exit


def functions(job: dict[str, Any], calls: int) -> None:
    """Define a program's functions, report that, and answer calls until the caller hangs up."""
    namespace = _module("program")
    with open(calls, "rb", closefd=False) as incoming, open(calls, "wb", closefd=False) as outgoing:
        _execute(job["code"], namespace, "program.py")
        _say(outgoing, {"defined": [name for name, value in namespace.items() if callable(value)]})
        for line in incoming:
            call = wire.loads(line)
            _say(outgoing, _answer(_function(namespace, call["name"]), call["args"], call["kwargs"]))


def _module(name: str) -> dict[str, Any]:
    """The namespace of a new module, registered so that pickle, dataclasses and unittest can look names up in it."""
    module = sys.modules[name] = types.ModuleType(name)
    return module.__dict__


def _execute(code: str, namespace: dict[str, Any], file: str) -> None:
    sys.argv[:] = [file]
    exec(compile(code, file, "exec", dont_inherit=True), namespace)  # without this file's own __future__ imports


def _function(namespace: dict[str, Any], name: str) -> Callable[..., Any]:
    """A function of the program, or a method of its class Solution."""
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
    """A function of the program, as the tests see it. Changes to lists, dicts and sets in place are carried over."""

    def __init__(self, name: str, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self.__name__ = name
        self.called = False
        self._incoming, self._outgoing = incoming, outgoing

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.called = True
        _say(self._outgoing, {"name": self.__name__, "args": list(args), "kwargs": kwargs})
        answer = wire.loads(self._incoming.readline())
        if "raised" in answer:
            raise _raised(str(answer["raised"]), str(answer["text"]))
        for mine, theirs in zip(args, answer["args"], strict=True):
            if isinstance(mine, list) and isinstance(theirs, list):
                mine[:] = theirs
            elif (isinstance(mine, dict) and isinstance(theirs, dict)) or (isinstance(mine, set) and isinstance(theirs, set)):
                mine.clear()
                mine.update(theirs)
        return answer["value"]


def _raised(name: str, text: str) -> Exception:
    """The program's exception, unless the tests would misread it: as the end of their own loops, or as a failed assert."""
    kind: Any = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and kind not in _NEVER_RAISED:
        with contextlib.suppress(TypeError):  # some cannot be constructed from a text alone
            return kind(text)
    return RemoteError(text)


def tests(job: dict[str, Any], calls: int) -> None:
    """Run a test program against the functions of another box, and write the verdict at the very end."""
    with open(calls, "rb", closefd=False) as incoming, open(calls, "wb", closefd=False) as outgoing:
        defined = wire.loads(incoming.readline())["defined"]
        remote = {name: Remote(name, incoming, outgoing) for name in job["names"]}
        assert job["entry"] or remote.keys() <= set(defined), "the program lacks a function that the tests call"
        namespace = _module("__main__")
        namespace.update(remote)
        try:
            _execute(job["code"], namespace, "tests.py")
        except SystemExit as ending:  # raised by the tests: the program's own does not get here
            if ending.code not in (None, 0):
                raise
        else:
            _run_tests(namespace, job["runs"])
            if job["check"]:
                namespace["check"](remote[job["entry"]])
        assert any(function.called for function in remote.values()), "the tests called nothing"
    with contextlib.closing(open(VERDICT, "w", encoding="utf-8")) as verdict:
        verdict.write(PASSED)


def _run_tests(namespace: dict[str, Any], names: list[str]) -> None:
    """Run what pytest and unittest would collect."""
    for name in names:
        namespace[name]()
    unittest = sys.modules.get("unittest")
    if unittest is not None:
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"]).run(result)
        assert result.wasSuccessful(), "the tests failed"
