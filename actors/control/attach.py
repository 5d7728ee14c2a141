"""Join, as a guest, a Ray cluster that runs already: quietly, within a time, and never starting one."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from renio_pipeline.config import ConfigError
from renio_pipeline.control.protocol import NAMESPACE, Unanswered

_ADDRESS = re.compile(r"(ray://)?(?P<host>[^/\s\[\]]+|\[[^/\s]+\]):(?P<port>\d{1,5})")
TOKEN_HINT = "if it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"


class NoEntryError(ConfigError):
    """The cluster at an address cannot be joined."""


@contextmanager
def guest(address: str, deadline: float) -> Iterator[None]:
    """Connected to the cluster at ``address``; disconnected afterwards. ``deadline`` is a ``time.monotonic()``.

    Raises:
        NoEntryError: the address is malformed, nobody listens there, or Ray does not let this process in.
        Unanswered: something listens there, but the connection was not made in time.
    """
    seconds = max(1.0, deadline - time.monotonic())
    _probe(address, min(seconds, 10.0))
    # Ray tries for minutes, and cannot be told to stop: a thread can be left behind.
    failure: list[Exception] = []
    thread = threading.Thread(target=_try, args=(lambda: _connect(address), failure), daemon=True)
    with _hushed():
        thread.start()
        thread.join(seconds)
    if thread.is_alive():
        raise Unanswered(
            f"the Ray cluster at {address} did not let this process in within {seconds:.0f} s; is it Ray that listens there, "
            "and is this machine one of the cluster's nodes? From others, give ray://HEAD:10001"
        )
    if failure:
        raise NoEntryError(f"no way into the Ray cluster at {address}: {failure[0]}; {TOKEN_HINT}") from failure[0]
    import ray

    try:
        yield
    finally:
        ray.shutdown()


def _probe(address: str, seconds: float) -> None:
    match = _ADDRESS.fullmatch(address)
    if not match:
        raise NoEntryError(f"--address: {address!r}: expected HOST:PORT or ray://HOST:PORT of a Ray cluster")
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), timeout=seconds).close()
    except (OSError, OverflowError) as error:
        raise NoEntryError(f"no Ray cluster answers at {address}: {error}") from None


def _connect(address: str) -> None:
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "3")  # so often Ray tries, a second apart, where its token is refused
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)


def _try(action: Callable[[], None], failure: list[Exception]) -> None:
    try:
        action()
    except Exception as error:
        failure.append(error)


@contextmanager
def _hushed() -> Iterator[None]:
    """Without what Ray's C++ core writes to the process's standard error while it connects; RENIO_TRACEBACK=1 shows it."""
    if os.environ.get("RENIO_TRACEBACK"):
        yield
        return
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
