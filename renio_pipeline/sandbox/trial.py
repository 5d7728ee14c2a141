"""Whether a program passes its tests. What it should give stays here, outside of its box.

A whole program is given each input and its output is compared here; a function is called from here, and its results, plain
data, are compared here; a program of asserts runs in a second box and calls the first (see
``renio_pipeline.sandbox.programs``). What a program prints, how it exits and what its objects claim to equal decide nothing.
"""

from __future__ import annotations

import json
import math
import re
import socket
import time
from dataclasses import dataclass
from typing import Any

from renio_pipeline.sandbox import programs, wire
from renio_pipeline.sandbox.box import Box, Ended, Limits, Mode

ALL_SECONDS = 50.0  # for all inputs of one program: less than a grader's deadline
_CLOSE = 1e-6
_DEFINITION = re.compile(r"^(?:async )?def (\w+)\(", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tests:
    """Either ``asserts`` or ``cases``."""

    asserts: str | None = None  # a Python program
    entry: str | None = None  # the function under test
    cases: tuple[tuple[Any, Any], ...] = ()  # what goes in, what must come out


def read_tests(text: str, problem: str = "") -> Tests:
    """A row's tests: a Python program, or JSON with ``inputs`` and ``outputs`` (with ``fn_name``: arguments and results).

    A program that defines ``check(candidate)`` tests the function that the problem's text defines last.

    Raises:
        ValueError: they are neither.
        SyntaxError: the program is none.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = {"program": text}
    if not isinstance(found, dict) or not ("program" in found or {"inputs", "outputs"} <= found.keys()):
        raise ValueError('tests are neither a Python program nor JSON with "inputs" and "outputs"')
    entry = found.get("fn_name") or None
    if "program" in found:
        compile(found["program"], "tests", "exec")
        if entry is None and re.search(r"^def check\(", found["program"], re.MULTILINE):
            entry = next(iter(_DEFINITION.findall(problem)[::-1]), None)
        return Tests(asserts=found["program"], entry=entry)
    inputs, outputs = found["inputs"], found["outputs"]
    if not inputs or len(inputs) != len(outputs):
        raise ValueError(f"tests have {len(inputs)} inputs and {len(outputs)} outputs")
    return Tests(entry=entry, cases=tuple(zip(inputs, outputs, strict=True)))


def passes(code: str, tests: Tests, limits: Limits, mode: Mode) -> bool:
    """Raises Refused where the box cannot be made. All else that goes wrong is the program's fault."""
    try:
        if tests.asserts is not None:
            return _asserts(code, tests, limits, mode)
        return (_calls if tests.entry else _scripts)(code, tests, limits, mode)
    except (Ended, TimeoutError, ConnectionError):
        return False


def _asserts(code: str, tests: Tests, limits: Limits, mode: Mode) -> bool:
    near, far = socket.socketpair()
    with Box(limits, mode=mode, calls=near) as program, Box(limits, mode=mode, calls=far) as judge:
        program.post({"kind": "functions", "code": code})
        judge.post({"kind": "tests", "code": tests.asserts, "entry": tests.entry})
        reply = judge.reply(2 * limits.seconds)
        return reply["output"] == programs.PASSED and reply["status"] == 0


def _scripts(code: str, tests: Tests, limits: Limits, mode: Mode) -> bool:
    until = time.monotonic() + ALL_SECONDS
    with Box(limits, mode=mode) as box:
        for given, wanted in tests.cases:
            box.post({"kind": "script", "code": code, "stdin": _text(given)})
            reply = box.reply(min(2 * limits.seconds, until - time.monotonic()))
            if reply["status"] != 0 or reply["over"] or not same_output(reply["output"], _text(wanted)):
                return False
    return True


def _calls(code: str, tests: Tests, limits: Limits, mode: Mode) -> bool:
    until = time.monotonic() + ALL_SECONDS
    ours, theirs = socket.socketpair()
    with ours, ours.makefile("rwb") as line, Box(limits, mode=mode, calls=theirs) as box:
        box.post({"kind": "functions", "code": code})
        ours.settimeout(2 * limits.seconds)
        _hear(line, limits)  # what it defines
        for given, wanted in tests.cases:
            line.write(wire.dumps({"name": tests.entry, "args": _arguments(given), "kwargs": {}}))
            line.flush()
            ours.settimeout(max(min(2 * limits.seconds, until - time.monotonic()), 0.001))
            answer = _hear(line, limits)
            if not isinstance(answer, dict) or "value" not in answer or not _any_same(answer["value"], _data(wanted)):
                return False
    return True


def _hear(line: Any, limits: Limits) -> Any:
    """A message of the program: it may be anything, of any length. Raises Ended for what is none."""
    try:
        return wire.loads(line.readline(limits.output_kb << 10))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise Ended("not a message") from error


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _arguments(given: Any) -> list[Any]:
    """Arguments as a list, or as text with one JSON value a line."""
    return [json.loads(part) for part in given.splitlines()] if isinstance(given, str) else list(given)


def _data(wanted: Any) -> Any:
    try:
        return json.loads(wanted) if isinstance(wanted, str) else wanted
    except ValueError:
        return wanted


def _any_same(value: Any, wanted: Any) -> bool:
    """Published tests put some results into a list of one, and some not."""
    return same(value, wanted) or (isinstance(wanted, list) and len(wanted) == 1 and same(value, wanted[0]))


def same(value: Any, wanted: Any) -> bool:
    """Equal as JSON: tuples are lists, keys are text, and numbers with a fraction agree to six digits."""
    if isinstance(wanted, list):
        return (
            isinstance(value, list | tuple) and len(value) == len(wanted)
            and all(same(v, w) for v, w in zip(value, wanted, strict=True))
        )  # fmt: skip
    if isinstance(wanted, dict):
        keyed = {str(k): v for k, v in value.items()} if isinstance(value, dict) else {}
        return isinstance(value, dict) and keyed.keys() == wanted.keys() and all(same(keyed[k], w) for k, w in wanted.items())
    if isinstance(wanted, float) and isinstance(value, int | float):
        return math.isclose(value, wanted, rel_tol=_CLOSE, abs_tol=_CLOSE)
    return type(value) in (type(None), bool, int, float, str) and bool(value == wanted)


def same_output(output: str, wanted: str) -> bool:
    """The same words; numbers with a fraction agree to six digits."""
    found, words = output.split(), wanted.split()
    return len(found) == len(words) and all(f == w or _close(f, w) for f, w in zip(found, words, strict=True))


def _close(word: str, wanted: str) -> bool:
    if "." not in wanted:
        return False
    try:
        return math.isclose(float(word), float(wanted), rel_tol=_CLOSE, abs_tol=_CLOSE)
    except ValueError:
        return False
