"""Connect a driver to Ray: to a running cluster, or to a Ray of its own."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from actors.cluster import reaper
from actors.cluster.address import Address
from actors.cluster.joining import check_answers, named
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.paths import shared_directory
from renio_pipeline.control.protocol import NAMESPACE
from renio_pipeline.loop.shutdown import leave


@dataclass(frozen=True)
class Cluster:
    """The Ray cluster that a run uses."""

    own: bool  # started by this run, and shut down with it
    host: str  # the address at which other nodes reach this one
    head: str  # HOST:PORT of its head


@contextmanager
def connect(address: Address | None) -> Iterator[Cluster]:
    """Connect to the cluster at ``address``, or start a Ray of this run's own; nothing of it remains afterwards.

    Args:
        address: what ``actors.cluster.address.settled`` returned; None: a Ray of the run's own.

    Raises:
        NoEntryError: what is at the address is no Ray cluster, or does not let this process in.
    """
    options: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.ERROR}
    watch = None
    if address is None:
        watch = reaper.start()
        ray.init(address="local", include_dashboard=False, **options)
    else:
        check_answers(address)
        with named(address):
            ray.init(address=address.text, **options)
    # ray.init has installed its own handler, which aborts. Unwind instead, so that Ray is shut down.
    signal.signal(signal.SIGTERM, leave)
    try:
        yield Cluster(own=address is None, host=ray.util.get_node_ip_address(), head=ray.get_runtime_context().gcs_address)
    finally:
        ray.shutdown()
        if watch is not None:
            watch.communicate()  # closes its stdin: it kills what Ray left behind, then exits


def run_directory(config: RunConfig, *, own: bool) -> RunConfig:
    """The configuration with the run's directory decided.

    ``own``: the run has a Ray of its own, not a running cluster.

    On a running cluster, processes run in copies of the working directory that may be evicted, so a relative path would be
    lost.

    Raises:
        ConfigError: ``run_dir`` is relative on a running cluster.
    """
    if own:
        return config
    if config.run_dir is None:
        return config.model_copy(update={"run_dir": shared_directory(config.name)})
    if not Path(config.run_dir).is_absolute():
        raise ConfigError(f"run_dir: {config.run_dir!r} must be an absolute path that every node sees, on a running cluster")
    return config
