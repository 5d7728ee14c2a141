"""A run's directory before the run: whether it is free, and can be written to."""

from __future__ import annotations

import os

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.run_dir import lease_files

PROBES = "probes"  # in a run's directory: what renio probe found, before the run or later


def check_run_dir(config: RunConfig, *, resume: bool = False) -> None:
    """Raises ConfigError if the run directory cannot be made, or belongs to a run already and this one does not ``resume``."""
    check_writable(config)
    folder = config.directory
    free = (lease_files.FOLDER, PROBES)
    if folder.exists() and not resume and not all(entry.name.startswith(free) for entry in folder.iterdir()):
        raise ConfigError(
            f"{config.directory_key}: {folder} is another run's directory (it is not empty); choose another run_dir or name, "
            "or resume that run with --resume"
        )


def check_writable(config: RunConfig) -> None:
    """Raises ConfigError if the run directory is no folder that this user can write to, and cannot become one."""
    folder = config.directory
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{config.directory_key}: {folder} cannot be made: {parent} is not a folder that this user can write to"
        )
