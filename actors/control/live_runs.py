"""The runs that are live on Ray clusters, and what their drivers answer, for a process that is none of theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from actors.cluster.address import NoEntryError
from actors.control import attach
from renio_pipeline.config import ConfigError
from renio_pipeline.control.protocol import NAMESPACE, Ended, Refused, Unanswered


@contextmanager
def joined(name: str | None, addresses: Sequence[str], deadline: float) -> Iterator[str]:
    """Connected to the cluster that has the run ``name`` (None: the only one that is live), which is yielded.

    Raises:
        ConfigError: there is none such, or several; or the only cluster cannot be joined.
        Unanswered: a cluster does not let this process in by ``deadline``, a ``time.monotonic()``.
    """
    if len(addresses) == 1:
        with attach.guest(addresses[0], deadline):
            yield _choose(name, [(addresses[0], run) for run in live_runs()], addresses)[1]
        return
    live: list[tuple[str, str]] = []
    closed = ""
    for address in addresses:
        try:
            with attach.guest(address, deadline):
                live += [(address, run) for run in live_runs()]
        except NoEntryError as error:
            closed += f"\n  {error}"  # perhaps none of ours, or one that is just ending
    address, run = _choose(name, live, addresses, closed)
    with attach.guest(address, deadline):
        yield run


def _choose(name: str | None, live: list[tuple[str, str]], addresses: Sequence[str], closed: str = "") -> tuple[str, str]:
    """The one of ``live`` (address, run) that is meant. Raises ConfigError, with ``closed`` at its end."""
    found = [(address, run) for address, run in live if name in (None, run)]
    if len(found) == 1:
        return found[0]
    where = " or ".join(addresses)
    if not live:
        raise ConfigError(f"no run is live on the Ray cluster at {where}{closed}")
    if not found:
        listed = ", ".join(sorted({run for _, run in live}))
        raise ConfigError(f"--run: no run {name!r} is live at {where}; live are {listed}{closed}")
    listed = ", ".join(sorted(f"{run} (at {address})" for address, run in found))
    option = "--address" if name else "--run" if len(addresses) == 1 else "--run or --address"
    raise ConfigError(f"{len(found)} runs are live: {listed}; say which with {option}{closed}")


def live_runs() -> list[str]:
    """The names of the runs on the cluster that this process has joined."""
    import ray

    return sorted(actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True) if actor["namespace"] == NAMESPACE)


def ask(run: str, verb: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The answer of the driver of ``run`` on the cluster that this process has joined.

    Raises:
        Refused: the driver's refusal; or Ended if the run has ended.
        Unanswered: no answer within ``seconds``.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

    seconds = max(0.1, seconds)
    try:
        control = ray.get_actor(run, namespace=NAMESPACE)
        # The mailbox keeps the time, as it knows what became of the command; a mailbox that is dumb is given a little more.
        reply: dict[str, Any] = ray.get(control.ask.remote(verb, arguments, seconds), timeout=seconds + 2.0)
    except GetTimeoutError:
        raise Unanswered(f"run {run!r}: no answer to {verb} within {seconds:.0f} s; its actor does not answer either") from None
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, Unanswered):
            raise Unanswered(f"run {run!r}: {cause}{_driver(control)}") from None
        if isinstance(cause, Refused):
            raise type(cause)(f"run {run!r}: {cause}") from None
        raise
    except (RayActorError, ValueError):  # ValueError: the name is gone since the runs were listed
        raise Ended(f"run {run!r} has ended, and has not answered") from None
    return reply


def _driver(control: Any) -> str:
    """Where to look for a driver that does not answer."""
    import ray

    with suppress(ray.exceptions.RayError):
        about = ray.get(control.about.remote(), timeout=2.0)
        if about:
            return f" (its driver is process {about['pid']} on {about['node']}, its run directory {about['run_dir']})"
    return ""
