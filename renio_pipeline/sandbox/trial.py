"""Whether a program passes its tests. The expected results stay here, outside the program's box.

A whole program gets each input, and its output is compared here. A function is called from here, and its results, plain data,
are compared here. A program of asserts runs in a second box and calls the first (see ``renio_pipeline.sandbox.programs``). With
functions, what a program prints, how it exits and what its objects claim to equal have no influence.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterable
from typing import Any

from renio_pipeline.sandbox import programs, wire
from renio_pipeline.sandbox.box import Box, Ended, Limits, Mode
from renio_pipeline.sandbox.reading import Tests

ALL_SECONDS = 50.0  # for all inputs of one program; less than a grader's deadline
_CLOSE = 1e-6
_PIECE = 1 << 16


def passes(code: str, tests: Tests, limits: Limits, mode: Mode) -> bool:
    """Whether the program passes. Raises Refused if the box cannot be created; any other failure counts against the program."""
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
        told = {"entry": tests.entry, "names": tests.names, "runs": tests.runs, "check": tests.check}
        judge.post({"kind": "tests", "code": tests.asserts} | told)
        reply = judge.reply(2 * limits.seconds)
        return reply["output"] == programs.PASSED and reply["status"] == 0


def _scripts(code: str, tests: Tests, limits: Limits, mode: Mode) -> bool:
    until = time.monotonic() + ALL_SECONDS
    with Box(limits, mode=mode) as box:
        for given, wanted in tests.cases:
            box.post({"kind": "script", "code": code, "stdin": given})
            reply = box.reply(min(2 * limits.seconds, until - time.monotonic()))
            if reply["status"] != 0 or reply["over"] or not same_output(reply["output"], wanted):
                return False
    return True


def _calls(code: str, tests: Tests, limits: Limits, mode: Mode) -> bool:
    until = time.monotonic() + ALL_SECONDS
    ours, theirs = socket.socketpair()
    with ours, Box(limits, mode=mode, calls=theirs) as box:
        box.post({"kind": "functions", "code": code})
        _hear(ours, limits, until)  # that its functions are defined
        for given, wanted in tests.cases:
            ours.settimeout(2 * limits.seconds)
            ours.sendall(wire.dumps({"name": tests.entry, "args": given, "kwargs": {}}))
            answer = _hear(ours, limits, until)
            if not isinstance(answer, dict) or "value" not in answer or not _any_same(answer["value"], wanted):
                return False
    return True


def _hear(program: socket.socket, limits: Limits, until: float) -> Any:
    """Receive a message of the program, which may be anything, of any length, in any number of pieces.

    Raises:
        TimeoutError: the message is not complete in time.
        Ended: it is not a message.
    """
    until, line = min(until, time.monotonic() + 2 * limits.seconds), bytearray()
    while not line.endswith(b"\n"):
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        program.settimeout(left)
        piece = program.recv(_PIECE)
        line += piece
        if not piece or len(line) > limits.output_kb << 10:
            raise Ended("not a message")
    try:
        return wire.loads(bytes(line))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ArithmeticError) as error:
        raise Ended("not a message") from error


def _any_same(value: Any, wanted: Iterable[Any]) -> bool:
    try:
        return any(same(value, one) for one in wanted)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return False  # not comparable, such as an integer too large for a float


def same(value: Any, wanted: Any) -> bool:
    """Whether two values are equal as JSON: tuples are lists, keys are text, and fractional numbers agree to six digits."""
    if isinstance(wanted, list):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(wanted)
            and all(same(v, w) for v, w in zip(value, wanted, strict=True))
        )
    if isinstance(wanted, dict):
        keyed = {str(k): v for k, v in value.items()} if isinstance(value, dict) else {}
        return isinstance(value, dict) and keyed.keys() == wanted.keys() and all(same(keyed[k], w) for k, w in wanted.items())
    if isinstance(wanted, float) and isinstance(value, int | float):
        return math.isclose(value, wanted, rel_tol=_CLOSE, abs_tol=_CLOSE)
    return type(value) in (type(None), bool, int, float, str) and bool(value == wanted)


def same_output(output: str, wanted: str) -> bool:
    """Whether two outputs have the same words; fractional numbers agree to six digits."""
    found, words = output.split(), wanted.split()
    return len(found) == len(words) and all(f == w or _close(f, w) for f, w in zip(found, words, strict=True))


def _close(word: str, wanted: str) -> bool:
    if "." not in wanted:
        return False
    try:
        return math.isclose(float(word), float(wanted), rel_tol=_CLOSE, abs_tol=_CLOSE)
    except ValueError:
        return False
