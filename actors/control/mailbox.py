"""The run's named actor: a mailbox between the driver and commands such as ``renio status``. It dies with the driver."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError

from renio_pipeline.config import ConfigError
from renio_pipeline.control.protocol import NAMESPACE, Ended, Refused, Unanswered

SETTLE_SECONDS = 0.2  # time for an answer to be sent on to the caller
PARTING_SECONDS = 1.0  # how long pending commands may still be answered when the run ends
Reply = dict[str, Any]
Handle = Callable[[str, dict[str, Any]], Awaitable[Reply]]

logger = logging.getLogger(__name__)


class Control:
    """Its name matters too: a second driver of a live run is refused, because the name is taken.

    Callers wait in ``ask``. The driver fetches commands with ``next`` and answers each by its ticket.
    """

    def __init__(self, about: dict[str, Any] | None = None) -> None:
        self._about = about or {}
        self._commands: asyncio.Queue[tuple[str, str, dict[str, Any]]] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[Reply]] = {}
        self._taken: set[str] = set()
        self._closed: str | None = None

    async def ready(self) -> bool:
        return True

    async def about(self) -> dict[str, Any]:
        """Who drives the run: ``run``, ``run_dir``, ``node``, ``pid``. Needs no driver to answer."""
        return self._about

    async def ask(self, verb: str, arguments: dict[str, Any], seconds: float | None = None) -> Reply:
        """The driver's answer. A command that the driver has not fetched within ``seconds`` is withdrawn.

        Raises:
            Refused: by the driver; Ended, because the run is ending.
            Unanswered: no answer within ``seconds`` (None: wait forever).
        """
        if self._closed is not None:
            raise Ended(self._closed)
        ticket = secrets.token_hex(8)  # differs from tickets before a restart, which may still be answered
        self._waiting[ticket] = asyncio.get_running_loop().create_future()
        self._commands.put_nowait((ticket, verb, arguments))
        try:
            return await asyncio.wait_for(self._waiting[ticket], seconds)
        except TimeoutError:
            state = "its driver has begun it and goes on with it" if ticket in self._taken else "it is withdrawn"
            raise Unanswered(f"no answer to {verb} within {seconds:g} s; {state}") from None
        finally:
            del self._waiting[ticket]
            self._taken.discard(ticket)

    async def next(self) -> tuple[str, str, dict[str, Any]]:
        """The oldest command whose caller still waits, with its ticket. Waits for one."""
        while True:
            ticket, verb, arguments = await self._commands.get()
            if ticket in self._waiting:
                self._taken.add(ticket)
                return ticket, verb, arguments

    async def answer(self, ticket: str, reply: Reply) -> None:
        """Returns when the answer has been sent, so that the driver may then end, and this actor with it."""
        waiting = self._waiting.get(ticket)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)
            await asyncio.sleep(SETTLE_SECONDS)

    async def refuse(self, ticket: str, text: str) -> None:
        """As ``answer``."""
        await self._fail(ticket, Refused(text))

    async def close(self, text: str) -> None:
        """Refuse all pending and all later commands."""
        self._closed = text
        await asyncio.gather(*(self._fail(ticket, Ended(text)) for ticket in list(self._waiting)))

    async def _fail(self, ticket: str, error: Refused) -> None:
        waiting = self._waiting.get(ticket)
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
            await asyncio.sleep(SETTLE_SECONDS)


def start(run: str, run_dir: str) -> Any:
    """The mailbox of ``run``, driven by this process. Raises ValueError if the name is taken, by a live run."""
    about = {"run": run, "run_dir": run_dir, "node": socket.gethostname(), "pid": os.getpid()}
    # Restarted if its process dies, because the name must stay taken while the driver lives.
    options = {"name": run, "namespace": NAMESPACE, "num_cpus": 0, "max_restarts": -1}
    return ray.remote(Control).options(**options).remote(about)


def claim(run: str, run_dir: str) -> Any:
    """The mailbox of ``run``, which reserves the run's name. Raises ConfigError if a driver of this name is live."""
    try:
        return start(run, run_dir)
    except ValueError:
        raise ConfigError(f"name: a run {run!r} is live on this cluster; stop it, or choose another name") from None


async def serve(control: Any, handle: Handle) -> None:
    """Pass each command to ``handle`` in its own task and send the answer back, until cancelled.

    Errors of ``handle`` are sent to the caller and do not end the run. When cancelled, it waits ``PARTING_SECONDS`` for pending
    commands, then cancels and refuses the rest.
    """
    running: set[asyncio.Task[None]] = set()
    try:
        while True:
            try:
                ticket, verb, arguments = await control.next.remote()
            except ActorDiedError as error:
                logger.warning("the run cannot be reached by renio status and the like any more: %s", error)
                return
            except RayActorError:  # its process died and is being restarted
                await asyncio.sleep(1.0)
                continue
            task = asyncio.create_task(_carry_out(control, handle, ticket, verb, arguments))
            running.add(task)
            task.add_done_callback(running.discard)
    finally:
        await _part(control, running)


async def _carry_out(control: Any, handle: Handle, ticket: str, verb: str, arguments: dict[str, Any]) -> None:
    try:
        sent = control.answer.remote(ticket, await handle(verb, arguments))
    except Refused as error:
        sent = control.refuse.remote(ticket, str(error))
    except Exception as error:
        logger.warning("%s failed", verb, exc_info=True)
        cause = getattr(error, "cause", None) or error  # of a remote task: the error itself, not Ray's traceback
        sent = control.refuse.remote(ticket, f"{type(cause).__name__}: {cause}")
    with suppress(RayError):
        await sent


async def _part(control: Any, running: set[asyncio.Task[None]]) -> None:
    left = set(running)
    if left:
        _, left = await asyncio.wait(left, timeout=PARTING_SECONDS)
    for task in left:
        task.cancel()
    with suppress(RayError, TimeoutError):
        await asyncio.wait_for(control.close.remote("the run is ending, or has ended"), 5.0)
