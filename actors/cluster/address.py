"""Which Ray cluster a command uses, settled before Ray is imported, and whether anybody listens there.

Does not import Ray: an environment variable that Ray reads when it is imported is settled here.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass

import psutil

from actors.cluster.own_folders import check_own_folders
from renio_pipeline.config import ConfigError
from renio_pipeline.config.paths import home

PROBE_SECONDS = 10.0
_ADDRESS = re.compile(r"(ray://)?(?P<host>[^/\s\[\]]+|\[[^/\s]+\]):(?P<port>\d{1,5})/?")
_WEB = re.compile(r"https?://(?P<host>[^/\s\[\]:]+|\[[^/\s]+\])(:\d+)?(/.*)?")
_USUAL = {8265: "the dashboard's, which takes jobs", 10001: "that of Ray Client"}  # ports that are no cluster's own
TOKEN_HINT = "if it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
OWN_RAY = "leave it out, and the command starts a Ray of its own"


@dataclass(frozen=True)
class Address:
    """HOST:PORT of a cluster, and the option or variable that gave it."""

    text: str
    key: str

    def __str__(self) -> str:
        return self.text


class NoEntryError(ConfigError):
    """The cluster at an address cannot be joined."""


def settled(option: str | None) -> Address | None:
    """The cluster that a run's driver joins; None: it starts a Ray of its own. To be called before Ray is imported.

    Args:
        option: the value of ``--address``. Without one RAY_ADDRESS counts.

    Raises:
        ConfigError: it is no address of a cluster, nobody listens there, or ``auto`` finds no cluster on this machine; or a Ray
            of its own could not write where it has to.
    """
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # or any call of Ray after this run's has ended would start another one
    key = "--address" if option else "RAY_ADDRESS"
    given = option or os.environ.get("RAY_ADDRESS")
    if not given or given == "local":
        check_own_folders()
        return None
    if given == "auto":
        found = local_clusters() or local_clusters(everyone=True)
        if not found:
            raise NoEntryError(
                f"{key}: auto: no Ray cluster has a node on this machine; start one with `ray start --head`, or {OWN_RAY}"
            )
        use_token_of_this_machine()
        given = found[0]
    if given.startswith("ray://"):
        raise NoEntryError(
            f"{key}: {given}: a driver must be on a node of the cluster: start it there with HOST:PORT, or submit it as a job "
            "with `ray job submit`"
        )
    probe(given, key)
    return Address(given, key)


def probe(address: str, key: str = "", seconds: float = PROBE_SECONDS) -> None:
    """Raises NoEntryError if ``address`` is none of a Ray cluster, or nobody listens there.

    Args:
        key: the option or variable that gave it, for the error; empty if it was found on this machine.
    """
    if web := _WEB.fullmatch(address):
        raise NoEntryError(
            f"{key or '--address'}: {address} is the address of a dashboard, to which `ray job submit` sends jobs; give "
            f"HOST:PORT of the cluster itself, {web['host']}:6379 unless it was started with another --port"
        )
    match = _ADDRESS.fullmatch(address)
    if not match:
        raise NoEntryError(f"{key or '--address'}: {address!r}: expected HOST:PORT or ray://HOST:PORT of a Ray cluster")
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), timeout=seconds).close()
    except (OSError, OverflowError) as error:
        port = "" if address.startswith("ray://") else f"; {other_port(address)}"
        told = f"no Ray cluster answers at {address}: {error}{port}"
        raise NoEntryError(f"{key}: {told}" if key else told) from None


def other_port(address: str) -> str:
    """What may be wrong with the port of an address, for the end of an error."""
    port = address.rstrip("/").rpartition(":")[2]
    usual = _USUAL.get(int(port) if port.isdecimal() else 0)
    told = f"port {port} is usually {usual}; " if usual else ""
    return f"{told}give the port of the cluster itself, 6379 unless it was started with another --port"


def local_clusters(*, everyone: bool = False) -> list[str]:
    """HOST:PORT of each cluster that has a node here, started by this user (or by any); the newest first.

    Ray's own "auto" takes any of several, unless ``ray start`` has started one of them.
    """
    found: dict[str, float] = {}
    for process in psutil.process_iter(["name", "cmdline", "create_time", "uids"]):
        info = process.info
        if info["name"] != "raylet" or info["uids"] is None or not (everyone or info["uids"].real == os.getuid()):
            continue
        for argument in info["cmdline"] or ():
            if argument.startswith("--gcs-address="):
                found[argument.partition("=")[2]] = info["create_time"]
    return sorted(found, key=lambda address: -found[address])


def use_token_of_this_machine() -> None:
    """As Ray does with a cluster that it finds itself: since it starts local ones with a token, made on first use."""
    known = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if known or (home() / ".ray/auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
