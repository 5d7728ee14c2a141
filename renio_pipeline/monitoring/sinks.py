"""The sinks of a run, chosen by its configuration."""

from __future__ import annotations

from importlib.util import find_spec

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.metrics.sink import JsonlSink, Sink
from renio_pipeline.monitoring.trace import Trace
from renio_pipeline.run_dir.directory import RunDirectory


def check_sinks(config: RunConfig) -> None:
    """Raises ConfigError for a sink whose package is not installed, or that needs a login."""
    for name in config.sinks:
        if find_spec(name) is None:
            raise ConfigError(f"sinks: {name} is not installed; pip install 'renio-pipeline[{name}]', or leave it out")
    if "wandb" in config.sinks:
        from renio_pipeline.monitoring.wandb import check_login

        check_login(config.wandb)


def file_sinks(config: RunConfig, directory: RunDirectory, last_step: int) -> list[Sink]:
    """All sinks except the endpoint. ``last_step``: the step after which the run resumes; 0 for a new run."""
    sinks: list[Sink] = [JsonlSink(directory.metrics, directory.fence)]
    if config.trace.steps:
        sinks.append(Trace(directory.path / "trace.json", config.trace.steps, directory.fence))
    if "tensorboard" in config.sinks:
        from renio_pipeline.monitoring.tensorboard import TensorBoardSink

        sinks.append(TensorBoardSink(directory.path / "tensorboard", last_step))
    if "wandb" in config.sinks:
        from renio_pipeline.monitoring.wandb import WandbSink

        sinks.append(WandbSink(config))
    return sinks
