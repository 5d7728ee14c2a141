"""Says in one line that the head of the cluster is lost. Ray ends the driver then, a minute later, and says nothing itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY_SECONDS = 5.0  # from the end of a look to the next
CONNECT_SECONDS = 5.0  # in which a head that is there lets anybody connect
LOOKS = 2  # in a row without an answer, before it is said
RESUME = "Then start it again with --resume, if need be in another cluster: it goes on after its newest checkpoint"


@contextmanager
def watched_head(address: str, note: Callable[[str], None], then: str = RESUME) -> Iterator[None]:
    """Within the context look whether something listens at ``address``, HOST:PORT of the cluster's head.

    The driver's actors may go on for that minute, so that nothing else shows the loss. A head that is started again in time, as
    KubeRay does with Redis behind it, costs the run nothing.

    Args:
        note: is called in a thread of its own, and must not need the event loop: that may wait for the lost head, in a call of
            Ray's that does not return.
        then: what to do when the command has ended, a sentence.
    """
    over = threading.Event()
    threading.Thread(target=_watch, args=(address, note, then, over), name="head-watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(address: str, note: Callable[[str], None], then: str, over: threading.Event) -> None:
    silent = 0
    while not over.wait(EVERY_SECONDS):
        listens = _listens(address)
        if over.is_set():
            return
        if listens:
            if silent >= LOOKS:
                note(f"the head of the Ray cluster, {address}, answers again")
            silent = 0
            continue
        silent += 1
        if silent == LOOKS:
            note(
                f"the head of the Ray cluster, {address}, is lost: unless it comes back within a minute, Ray ends this "
                f"command. {then}"
            )


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS):
            return True
    except OSError:  # TimeoutError is one
        return False
