"""The process behind ``workers.py``: makes a task, and answers questions until its owner hangs up or dies.

Each message is a list of questions, and each question gets one line of JSON: ``{"value": ...}`` or ``{"error": ...}``.
"""

from __future__ import annotations

import json
import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO

from renio_pipeline.sandbox import kernel


def main() -> None:
    owner = os.getppid()
    kernel.die_with_parent()
    if os.getppid() != owner:
        return  # the owner died before its death could be signalled
    incoming, outgoing = _private(0, "rb"), _private(1, "wb")
    answers = _Answers()
    try:
        for questions in _messages(incoming):
            for verb, *arguments in questions:
                outgoing.write(_reply(partial(answers.to, verb, *arguments)).encode() + b"\n")
                outgoing.flush()
    except BrokenPipeError:
        os._exit(0)  # the owner has hung up; an ordinary exit would try to flush once more, and complain


class _Answers:
    """The task, once it was made, and its answers."""

    def __init__(self) -> None:
        self._task: Any = None

    def to(self, verb: str, *arguments: Any) -> Any:
        # Imported late, so that a failing import is answered like any other error.
        from renio_pipeline.grading.questions import QUESTIONS
        from renio_pipeline.tasks import make_task

        if verb == "make":
            self._task = make_task(*arguments)
            return None
        if verb == "warm up":
            for question in QUESTIONS.values():
                with suppress(Exception, SystemExit):  # a made-up row may lack what the task needs; only its imports matter
                    question(self._task, *arguments)
            return None
        return QUESTIONS[verb](self._task, *arguments)


def _reply(answer: Callable[[], Any]) -> str:
    try:
        return json.dumps({"value": answer()})
    except Exception as error:
        from renio_pipeline.config import ConfigError

        found = {"text": str(error), "kind": type(error).__name__, "traceback": traceback.format_exc()}
        return json.dumps({"error": found | {"config": isinstance(error, ConfigError)}})


def _private(fd: int, mode: str) -> Any:
    """The pipe to the owner under another number: what a verifier prints or reads must not be part of it."""
    pipe = os.fdopen(os.dup(fd), mode)
    instead = os.open(os.devnull, os.O_RDONLY) if fd == 0 else os.dup(2)
    os.dup2(instead, fd)
    os.close(instead)
    return pipe


def _messages(incoming: BinaryIO) -> Iterator[list[tuple[Any, ...]]]:
    while header := incoming.read(8):
        yield pickle.loads(incoming.read(int.from_bytes(header, "big")))


if __name__ == "__main__":
    main()
