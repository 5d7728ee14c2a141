"""Files by which Prometheus finds the run (``file_sd_configs``)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.run_dir.checkpoint_files import write_durably


def check_discovery(folder: str | None) -> None:
    """Create the folder of the key ``metrics_discovery``. Raises ConfigError if it cannot be created or written to."""
    if folder is None:
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"metrics_discovery: {folder} cannot be created: {error.strerror or error}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"metrics_discovery: {folder} is not a folder that this user can write to")


@contextmanager
def discoverable(config: RunConfig, address: str) -> Iterator[None]:
    """Advertise ``address`` (HOST:PORT) inside the block: in the run's directory, and in ``metrics_discovery``.

    A resumed run replaces the file that a killed driver may have left. A file that another driver has written since stays.
    """
    paths = [config.directory / "prometheus.json"]
    if config.metrics_discovery is not None:
        of_this_run = hashlib.blake2b(str(config.directory.absolute()).encode(), digest_size=4).hexdigest()
        paths.append(Path(config.metrics_discovery) / f"{config.name}-{of_this_run}.json")
    own = targets(config.name, address)
    for path in paths:
        write_durably(path, own)
    try:
        yield
    finally:
        for path in paths:
            if path.is_file() and path.read_text(encoding="utf-8") == own:
                path.unlink(missing_ok=True)


def targets(run: str, address: str) -> str:
    """The two targets of a run: its own metrics and its engines'."""
    groups = [{"targets": [address], "labels": {"run": run, "__metrics_path__": path}} for path in ("/metrics", "/engines")]
    return json.dumps(groups, indent=1) + "\n"
