"""Whether a driver can join the Ray cluster at an address, found out in seconds, and errors that name the address."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from actors.cluster.address import TOKEN_HINT, Address, NoEntryError, other_port
from actors.cluster.quiet import hushed

ANSWER_SECONDS = 15.0  # for a cluster to say who it is
TRIES = 3  # to find this machine among its nodes


def check_answers(address: Address) -> None:
    """Raises NoEntryError unless a Ray cluster with a node on this machine answers at ``address``.

    ``ray.init`` would try for ten minutes where nobody answers, and for one where this machine has none of the nodes.
    """
    failure: list[Exception] = []
    here: list[bool] = []

    def ask() -> None:
        try:
            client = ray._raylet.GcsClient(address=address.text)
            for _ in range(TRIES):
                known = {node.node_id.hex() for node in client.get_all_node_info(timeout=ANSWER_SECONDS).values()}
                here.append(bool(known & set(ray._private.services.find_node_ids())))
                if here[-1]:
                    return
                time.sleep(1.0)  # one that has just been started registers itself first
        except Exception as error:
            failure.append(error)

    # It tries for forty seconds and cannot be told to stop, so that its thread may be left behind.
    thread = threading.Thread(target=ask, daemon=True)
    with hushed():
        thread.start()
        thread.join(ANSWER_SECONDS + TRIES)
    if failure:
        why = str(failure[0]).split(". ")[0]
        raise NoEntryError(
            f"{address.key}: no way into the Ray cluster at {address}: {why}; "
            f"{TOKEN_HINT if 'token' in why.lower() else other_port(address.text)}"
        )
    if not here:
        raise NoEntryError(
            f"{address.key}: something listens at {address}, but no Ray cluster answers there within {ANSWER_SECONDS:g} s; "
            f"{other_port(address.text)}"
        )
    if not here[-1]:
        raise NoEntryError(
            f"{address.key}: the Ray cluster at {address} has no node on this machine; start the command on one of its nodes, "
            f"make this machine one with `ray start --address={address}`, or submit a job with `ray job submit`"
        )


@contextmanager
def named(address: Address) -> Iterator[None]:
    """What goes wrong in joining the cluster at ``address`` names it."""
    try:
        yield
    except Exception as error:  # Ray raises many types
        why = str(error.__cause__ or error).strip().splitlines()[0]
        raise NoEntryError(
            f"{address.key}: the Ray cluster at {address} did not let this process in: {why}; start it on one of the cluster's "
            f"nodes; {TOKEN_HINT}"
        ) from error
