"""The folders in which a Ray of a run's own writes: its temporary one has its sockets, the user's home its token."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from renio_pipeline.config import ConfigError
from renio_pipeline.config.paths import expanded, home

LONGEST_SOCKET = 107  # bytes of a Unix socket's path
_BELOW = (
    "/ray/session_2026-01-01_00-00-00_000000_{pid}/sockets/plasma_store"  # Ray's longest socket, below its temporary folder
)


def check_own_folders() -> None:
    """Raises ConfigError, which names the variable to set, if Ray could not write where it has to."""
    _temporary()
    if _needs_token_file():
        _home()


def longest_folder(pid: int) -> int:
    """The most bytes that the path of Ray's temporary folder may have, for a driver of this process id."""
    return LONGEST_SOCKET - len(_BELOW.format(pid=pid))


def _temporary() -> None:
    key = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    folder = expanded(os.environ[key], key) if key else "/tmp"
    told = f"{key}: {folder}" if key else f"RAY_TMPDIR: it is not set, and {folder}"
    most, bytes_ = longest_folder(os.getpid()), len(os.fsencode(folder.rstrip("/")))
    if bytes_ > most:
        raise ConfigError(
            f"{told} has {bytes_} bytes, and with more than {most} the paths of Ray's sockets below it would exceed the "
            f"{LONGEST_SOCKET} bytes that the system allows; set RAY_TMPDIR to a shorter one, such as /tmp"
        )
    if fault := _not_written(Path(folder).absolute() / "ray"):
        raise ConfigError(f"{told}: Ray cannot write there: {fault}; set RAY_TMPDIR to a folder that this user can write to")


def _needs_token_file() -> bool:
    """Whether Ray makes the token of its local clusters itself, in the user's home, or reads it there."""
    given = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return not given and os.environ.get("RAY_AUTH_MODE", "token").lower() == "token"


def _home() -> None:
    folder = home()
    if not (folder / ".ray/auth_token").is_file() and (fault := _not_written(folder / ".ray")):
        raise ConfigError(
            f"HOME: Ray keeps the token of its clusters in a user's home folder, and {folder} cannot be written to: {fault}; "
            "set HOME to a folder that this user can write to"
        )


def _not_written(folder: Path) -> str | None:
    """Why a file in ``folder``, or what of it exists, cannot be written; None if it can. Leaves nothing behind.

    By trying: permissions alone say nothing of a file system that is read-only or full.
    """
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return f"{error.strerror} ({nearest})"
    return None
