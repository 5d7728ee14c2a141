"""Runs the tests of a program, beside which they have an interpreter of their own, and writes the verdict at the very end."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection
from typing import Any

from renio_pipeline.sandbox import assumed, collecting, programs
from renio_pipeline.sandbox.exchange import guard, remote, remote_types, tests_end

PASSED = "passed"
VERDICT = 4  # a file descriptor


def tests(job: dict[str, Any], calls: int) -> None:
    """Run a test program against the program in another box."""
    namespace = programs.module("__main__")
    with open(calls, "rb", closefd=False) as incoming, open(calls, "wb", closefd=False) as outgoing:
        end = tests_end.TestsEnd(incoming, outgoing, lends=job["lends"], lent=lambda name: namespace[name], seed=job["seed"])
        found = _resolved(end, job["names"], job["entry"], job["assumable"])
        end.trust((found[name] for name in job["classes"]), but_not_made=[found[name] for name in job["compared"]])
        namespace.update({"issubclass": remote_types.is_subclass} | {name: found[name] for name in job["names"]})
        for name in job["modules"]:
            programs.module(name).update(found)
        assumed.supply(job["code"], namespace)
        try:
            programs.execute(job["code"], namespace, "tests.py")
        except SystemExit as ending:
            if isinstance(ending, guard.ProgramExit) or ending.code not in (None, 0):
                raise
        else:
            if job["collect"]:
                collecting.run(job["code"])
            else:
                _run(namespace, job["runs"])
            if job["check"]:
                namespace["check"](found[job["entry"]])  # whatever the tests call by the same name
        assert end.used, "the tests used nothing of the program"
    with contextlib.closing(open(VERDICT, "w", encoding="utf-8")) as verdict:
        verdict.write(PASSED)


def _resolved(end: tests_end.TestsEnd, names: list[str], entry: str | None, assumable: Collection[str]) -> dict[str, Any]:
    """The values of the names that tests use: the program's, or else the assumed ones.

    Raises:
        AssertionError: the program lacks one, or all.
    """
    wanted = sorted({*names, *([entry] if entry else [])})
    found = dict(end.ask("names", wanted, entry))
    end.used = any(remote.held(value) is None for value in found.values())  # a constant is used by being there
    assert found, "the program has none of the names that the tests use"
    for name in wanted:
        if name not in found:
            assert name in assumable, f"the program lacks {name}, which the tests use"
            found[name] = assumed.found(name)
    return found


def _run(namespace: dict[str, Any], names: list[str]) -> None:
    """Run what pytest and unittest would collect."""
    for name in names:
        namespace[name]()
    unittest = sys.modules.get("unittest")
    if unittest is not None:
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"]).run(result)
        assert result.wasSuccessful(), "the tests failed"
