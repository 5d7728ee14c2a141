"""The Ray clusters in which ``renio status`` and its like look for runs.

Does not import Ray: an environment variable that Ray reads when it is imported is settled here.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from renio_pipeline.config import ConfigError


def addresses(given: str | None) -> list[str]:
    """Where to look for runs: ``given``, or RAY_ADDRESS, or every cluster of this user on this machine, the newest first.

    Raises:
        ConfigError: an address of a Ray that would have to be started; or none is given, and no cluster is here.
    """
    given = given or os.environ.get("RAY_ADDRESS")
    if given == "local":
        raise ConfigError("--address: 'local' means a new Ray, which has no runs; give HOST:PORT of one that is up, or nothing")
    if given and given != "auto":
        return [given]
    found = local_clusters()
    if not found:
        raise ConfigError("no run is live here: this machine has no Ray; for another machine's, give --address or RAY_ADDRESS")
    _use_token_of_this_machine()
    return found


def local_clusters() -> list[str]:
    """HOST:PORT of each cluster that has a node here, started by this user; the newest first.

    Ray's own "auto" takes any of several, unless ``ray start`` has started one of them.
    """
    found: dict[str, float] = {}
    for process in psutil.process_iter(["name", "cmdline", "create_time", "uids"]):
        info = process.info
        if info["name"] != "raylet" or info["uids"] is None or info["uids"].real != os.getuid():
            continue
        for argument in info["cmdline"] or ():
            if argument.startswith("--gcs-address="):
                found[argument.partition("=")[2]] = info["create_time"]
    return sorted(found, key=lambda address: -found[address])


def _use_token_of_this_machine() -> None:
    """As Ray does with a cluster that it finds itself: since it starts local ones with a token, made on first use."""
    known = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if known or (Path.home() / ".ray/auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
