"""Whether a program passes its tests. The expected results stay here, outside the program's box.

A whole program gets each input, and its output is compared here. A function is called from here, and its results, plain data,
are compared here. A program of asserts runs in a second box and uses the first (see ``renio_pipeline.sandbox.programs``). With
functions, what a program prints, how it exits and what its objects claim to equal have no influence.
"""

from __future__ import annotations

import json
import math
import socket
import time
import zlib
from typing import Any

from renio_pipeline.sandbox import given, testing
from renio_pipeline.sandbox.box import Box, Ended, overdue
from renio_pipeline.sandbox.deadline import LOOK_SECONDS, Deadline, Watch
from renio_pipeline.sandbox.exchange import results
from renio_pipeline.sandbox.limits import Limits, Mode
from renio_pipeline.sandbox.reading import Tests
from renio_pipeline.sandbox.same import any_same, same_output

ALL_SECONDS = 50.0  # of CPU time, for all inputs of one program; less than a grader's deadline
_PIECE = 1 << 16
_SLACK = 3  # times the expected output's length, where that is long


def passes(code: str, tests: Tests, limits: Limits, mode: Mode, *, problem: str = "", assume: bool = True) -> bool:
    """Whether the program passes.

    Args:
        problem: the row's text. What Python code in it defines, a program's functions may use.
        assume: whether programs may use ``List``, ``deque``, ``math`` and the like without importing them, see ``assumed``.

    Raises:
        Refused: the box could not be created. Any other failure counts against the program.
    """
    job = {"code": code, "assume": assume}
    try:
        if tests.asserts is not None:
            return _asserts(job | {"given": given.definitions(problem)}, tests, tests.asserts, limits, mode)
        if tests.entry:
            return _calls(job | {"given": given.definitions(problem)}, tests, limits, mode)
        return _scripts(job, tests, limits, mode)
    except (Ended, TimeoutError, ConnectionError):
        return False


def _asserts(job: dict[str, Any], tests: Tests, code: str, limits: Limits, mode: Mode) -> bool:
    near, far = socket.socketpair()
    with Box(limits, mode=mode, calls=near) as program, Box(limits, mode=mode, calls=far) as judge:
        program.post({"kind": "program", "lends": tests.lends, "fixed": tests.fixed} | job)
        told = {
            name: getattr(tests, name)
            for name in ("entry", "names", "runs", "check", "classes", "lends", "assumable", "compared", "modules", "collect")
        }
        judge.post({"kind": "tests", "code": code, "seed": zlib.crc32(code.encode())} | told)
        reply = judge.reply(0, watch=_watch([program, judge], limits))
        return reply["output"] == testing.PASSED and reply["status"] == 0


def _scripts(job: dict[str, Any], tests: Tests, limits: Limits, mode: Mode) -> bool:
    with Box(limits, mode=mode) as box:
        budget = _budget(box)
        for sent, wanted in tests.cases:
            most = max(limits.output_kb << 10, _SLACK * len(wanted.encode()))
            box.post({"kind": "script", "stdin": sent, "most_output": most} | job)
            reply = box.reply(0, watch=_watch([box], limits))
            if reply["status"] != 0 or reply["over"] or not same_output(reply["output"], wanted):
                return False
            overdue(budget)
    return True


def _calls(job: dict[str, Any], tests: Tests, limits: Limits, mode: Mode) -> bool:
    ours, theirs = socket.socketpair()
    with ours, Box(limits, mode=mode, calls=theirs) as box:
        budget = _budget(box)
        ours.settimeout(LOOK_SECONDS)
        box.post({"kind": "functions"} | job)
        _hear(ours, _watch([box], limits), limits)  # that its functions are defined
        for sent, wanted in tests.cases:
            _say(ours, json.dumps({"name": tests.entry, "args": sent}).encode() + b"\n", _watch([box], limits))
            answer = _hear(ours, _watch([box], limits), limits, most=_SLACK * len(json.dumps(wanted)))
            if not isinstance(answer, dict) or "value" not in answer or not any_same(answer["value"], wanted):
                return False
            overdue(budget)
    return True


def _watch(boxes: list[Box], limits: Limits) -> Watch:
    """For one input, or for all asserts. The kernel bounds the CPU time of each process; this, of all that it starts one
    by one."""
    pids = [box.pid for box in boxes]
    return Watch(pids, Deadline(cpu_seconds=ALL_SECONDS, idle_seconds=2 * limits.seconds), of_descendants=True)


def _budget(box: Box) -> Watch:
    """For all inputs together."""
    watch = Watch([box.pid], Deadline(cpu_seconds=ALL_SECONDS, idle_seconds=math.inf), of_descendants=True)
    watch.look()
    return watch


def _say(program: socket.socket, message: bytes, watch: Watch) -> None:
    """Send a message to a program that may not read it. Raises TimeoutError."""
    while message:
        try:
            message = message[program.send(message) :]
        except TimeoutError:
            overdue(watch)


def _hear(program: socket.socket, watch: Watch, limits: Limits, most: int = 0) -> Any:
    """Receive a message of the program, which may be anything, of any length, in any number of pieces.

    Raises:
        TimeoutError: the message is not complete in time.
        Ended: it is not a message.
    """
    line, looked = bytearray(), time.monotonic()
    while not line.endswith(b"\n"):
        if time.monotonic() - looked > LOOK_SECONDS:  # also where pieces keep coming
            looked = time.monotonic()
            overdue(watch)
        try:
            piece = program.recv(_PIECE)
        except TimeoutError:
            continue
        line += piece
        if not piece or len(line) > max(most, limits.output_kb << 10):
            raise Ended("not a message")
    try:
        return results.loads(bytes(line))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Ended("not a message") from error
