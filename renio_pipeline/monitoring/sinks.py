"""The sinks of a run, chosen by its configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.metrics.sink import JsonlSink, Sink
from renio_pipeline.monitoring.trace import Trace
from renio_pipeline.monitoring.trackers.sink import Tracked, TrackerSink
from renio_pipeline.run_dir.directory import RunDirectory

# Trackers: the class of each, in the module of its name, which also has its ``check``. Both import the library late.
TRACKERS = {"wandb": "WandbRun", "mlflow": "MlflowRun", "trackio": "TrackioRun", "swanlab": "SwanlabRun"}


def check_sinks(config: RunConfig) -> None:
    """Raises ConfigError for a sink whose package is not installed, or that needs a login or another address."""
    for name in config.sinks:
        if find_spec(name) is None:
            raise ConfigError(f"sinks: {name} is not installed; pip install 'renio-pipeline[{name}]', or leave it out")
    for name in config.sinks:
        if name in TRACKERS:
            _module(name).check(config)


def file_sinks(
    config: RunConfig,
    directory: RunDirectory,
    last_step: int,
    note: Callable[[str], None] = lambda text: None,
    overrides: Sequence[str] = (),
) -> list[Sink]:
    """All sinks except the endpoint.

    Args:
        last_step: the step after which the run resumes; 0 for a new run.
        note: tells the user where a tracker has the run, or why not. Called from other threads too.
        overrides: those of the command line, for trackers.
    """
    sinks: list[Sink] = [JsonlSink(directory.metrics, directory.fence)]
    if config.trace.steps:
        sinks.append(Trace(directory.path / "trace.json", config.trace.steps, directory.fence))
    if "tensorboard" in config.sinks:
        from renio_pipeline.monitoring.tensorboard import TensorBoardSink

        sinks.append(TensorBoardSink(directory.path / "tensorboard", last_step))
    tracked = Tracked(config=config, overrides=tuple(overrides))
    for name in config.sinks:
        if name in TRACKERS:
            begin = partial(getattr(_module(name), TRACKERS[name]), tracked)
            sinks.append(TrackerSink(name, begin, note))
    return sinks


def _module(tracker: str) -> Any:
    return import_module(f"renio_pipeline.monitoring.trackers.{tracker}")
