"""Paths that a user writes, in a configuration or on the command line: ``~`` is expanded here and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from renio_pipeline.config.errors import ConfigError


def home() -> Path:
    """The user's home folder. Raises ConfigError if there is none, as in a container with a user of any number."""
    try:
        return Path.home()
    except RuntimeError:
        raise ConfigError(f"HOME: it is not set, and user {os.getuid()} has no home folder; set it to a folder") from None


def own_directory(run: str) -> str:
    """Where a run is that names no directory, and has a Ray of its own."""
    return f"runs/{run}"


def shared_directory(run: str) -> str:
    """Where a run is that names no directory, on a running cluster: that path is the same on every node. Raises ConfigError."""
    return str(home() / "renio-runs" / run)


def expanded(path: str, key: str = "") -> str:
    """``path`` with a leading ``~`` or ``~USER`` replaced by that home folder. ``./~`` is a file of that name.

    Args:
        key: the key or option that has the path, for the error.

    Raises:
        ConfigError: there is no such home folder.
    """
    found = os.path.expanduser(path)
    if path.startswith("~") and found == path:
        owner = path.partition("/")[0]
        told = f"{path!r}: there is no home folder {owner}; write the path out, or ./{owner} for a file of that name"
        raise ConfigError(f"{key}: {told}" if key else told)
    return found


UserPath = Annotated[str, AfterValidator(lambda path: expanded(path))]
