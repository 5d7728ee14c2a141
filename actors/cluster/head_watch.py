"""Says in one line that the head of the cluster is lost. Ray ends the driver then, a minute later, and says nothing itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

EVERY_SECONDS = 5.0
LOOKS = 2  # in a row without an answer, before it is said


async def watch_head(address: str, note: Callable[[str], None]) -> None:
    """Look until cancelled whether something listens at ``address``, HOST:PORT of the cluster's head.

    The driver's actors may go on for that minute, so that nothing else shows the loss. A head that is started again in time, as
    KubeRay does with Redis behind it, costs the run nothing.
    """
    silent = 0
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        if await _listens(address):
            if silent >= LOOKS:
                note(f"the head of the Ray cluster, {address}, answers again")
            silent = 0
            continue
        silent += 1
        if silent == LOOKS:
            note(
                f"the head of the Ray cluster, {address}, is lost: unless it comes back within a minute, Ray ends this run. "
                "Then start it again with --resume, if need be in another cluster: it goes on after its newest checkpoint"
            )


async def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(EVERY_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
