"""Join, as a guest, a Ray cluster that runs already: quietly, within a time, and never starting one."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from actors.cluster.address import PROBE_SECONDS, TOKEN_HINT, NoEntryError, probe
from actors.cluster.quiet import hushed
from renio_pipeline.control.protocol import NAMESPACE, Unanswered


@contextmanager
def guest(address: str, deadline: float) -> Iterator[None]:
    """Connected to the cluster at ``address``; disconnected afterwards. ``deadline`` is a ``time.monotonic()``.

    Raises:
        NoEntryError: the address is malformed, nobody listens there, or Ray does not let this process in.
        Unanswered: something listens there, but the connection was not made in time.
    """
    seconds = max(1.0, deadline - time.monotonic())
    probe(address, "RAY_ADDRESS" if address == os.environ.get("RAY_ADDRESS") else "", min(seconds, PROBE_SECONDS))
    # Ray tries for minutes, and cannot be told to stop: a thread can be left behind.
    failure: list[Exception] = []
    thread = threading.Thread(target=_try, args=(lambda: _connect(address), failure), daemon=True)
    with hushed():
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
