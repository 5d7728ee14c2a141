"""What the child of a job runs: a script, a program whose functions are called from outside, or a program that tests use.

Program and tests never share an interpreter. The tests run in a separate box (see ``testing``), and use the program over a
socket that carries nothing else (see ``exchange``). A program can therefore forge only its own results; it reaches neither the
expected values nor the descriptor of the verdict.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import itertools
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from renio_pipeline.sandbox import assumed
from renio_pipeline.sandbox.exchange import program_end, results, shared

CALLS = 3  # a file descriptor
_MOST_YIELDED = 100_000


def script(job: dict[str, Any], _calls: int) -> None:
    """Run a whole program, as if it were started from the command line."""
    namespace, file = module("__main__"), os.path.join(os.path.dirname(os.getcwd()), "program.py")
    with open(file, "w", encoding="utf-8", errors="surrogatepass") as source:  # a process that is not forked reads it
        source.write(job["code"])
    _supply(job, namespace)
    try:
        execute(job["code"], namespace, file)
    finally:
        _leave(namespace)


def functions(job: dict[str, Any], calls: int) -> None:
    """Define a program's functions, report that, and answer calls until the caller hangs up."""
    program = Program(module("program"))
    with open(calls, "rb", closefd=False) as incoming, open(calls, "wb", closefd=False) as outgoing:
        program.define(job)
        _say(outgoing, results.dumps({"defined": True}))
        for line in incoming:
            call = json.loads(line)
            _say(outgoing, _answer(program.entry(call["name"]), call["args"]))


def program(job: dict[str, Any], calls: int) -> None:
    """Define a program, and let the tests in the other box use it until they hang up."""
    program = Program(module("program"))
    if lent := set(job["lends"]) & assumed.free_names(job["code"]):
        program.namespace["__builtins__"] = lending = _Lending(vars(builtins), lent)
    with open(calls, "rb", closefd=False) as incoming, open(calls, "wb", closefd=False) as outgoing:
        end = program_end.ProgramEnd(incoming, outgoing, program.names)
        shared.capture()
        builtins.print = end.print
        program.define(job)
        if lent:
            lending.lend = lambda name: end.ask("lent", name)
        sys.stdin = stdin = program_end.Stdin(end)
        builtins.input = stdin.input
        end.serve()


class Program:
    """A program's namespace, once it is defined, and what of it is the program's own."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self._supplied = set[str]()
        self._given: dict[str, Any] = {}  # what the problem's own text defines: perhaps only a stub of the entry
        self._fixed: list[str] = []  # names of it that the program may not define anew for its tests

    def define(self, job: dict[str, Any]) -> None:
        """Run what the problem's own text defines, then the program."""
        for definition in job.get("given", ()):
            _supply(job | {"code": definition}, self.namespace)
            with contextlib.suppress(Exception):  # a part of an example, perhaps
                execute(definition, self.namespace, "problem.py")
        self._given, self._fixed = dict(self.namespace), job.get("fixed", [])
        self._supplied = _supply(job, self.namespace)
        execute(job["code"], self.namespace, "program.py")

    def names(self, names: list[str], entry: str | None) -> dict[str, Any]:
        """Those of the names that there are, and the entry."""
        found = {name: self.namespace[name] for name in names if name in self.namespace.keys() - self._supplied}
        found |= {name: self._given[name] for name in self._fixed if name in self._given}
        if entry is not None and (function := self.entry(entry)) is not None:
            found[entry] = function
        return found

    def entry(self, name: str) -> Any:
        """The program's function of that name, or the method of its class Solution. None: there is neither."""
        function = self.namespace.get(name)
        if (function is None or function is self._given.get(name)) and "Solution" in self.namespace:
            function = getattr(self.namespace["Solution"](), name, function)
        return function


class _Lending(dict[str, Any]):
    """Builtins, and after them the tests' own names: where program and tests share a module, each sees the other's."""

    def __init__(self, known: dict[str, Any], names: set[str]) -> None:
        super().__init__(known)
        self._names = names
        self.lend: Callable[[str], Any] = self._placeholder  # until the tests run; annotations name such classes before

    def _placeholder(self, name: str) -> type:
        return type(name, (), {})

    def __missing__(self, name: str) -> Any:
        if name in self._names:
            with contextlib.suppress(Exception):  # not defined yet: a NameError here as well
                return self.lend(name)
        raise KeyError(name)


def _supply(job: dict[str, Any], namespace: dict[str, Any]) -> set[str]:
    return assumed.supply(job["code"], namespace) if job.get("assume") else set()


def _leave(namespace: dict[str, Any]) -> None:
    """What an interpreter does on exit: it waits for threads, calls functions, and deletes names, which closes files."""
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.__stdout__):
        with contextlib.suppress(Exception):
            stream.flush()  # type: ignore[union-attr]
    for name in list(namespace):
        namespace[name] = namespace[name] if name == "__builtins__" else None


def module(name: str) -> dict[str, Any]:
    """The namespace of a new module, registered so that pickle, dataclasses and unittest can look names up in it."""
    module = sys.modules[name] = types.ModuleType(name)
    return module.__dict__


def execute(code: str, namespace: dict[str, Any], file: str) -> None:
    sys.argv[:] = [file]
    namespace["__file__"] = file
    exec(compile(code, file, "exec", dont_inherit=True), namespace)  # without this file's own __future__ imports


def _answer(function: Callable[..., Any], args: list[Any]) -> bytes:
    """A message, encoded once: an iterator can be read but once."""
    try:
        value = function(*args)
        if isinstance(value, Iterator):
            value = list(itertools.islice(value, _MOST_YIELDED))
        return results.dumps({"value": value})
    except Exception:
        return results.dumps({"raised": True})


def _say(outgoing: BinaryIO, message: bytes) -> None:
    outgoing.write(message)
    outgoing.flush()
