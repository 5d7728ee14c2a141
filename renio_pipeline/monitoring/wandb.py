"""The metrics as a Weights & Biases run."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.schema import Wandb
from renio_pipeline.metrics.sink import Sink
from renio_pipeline.run_dir.checkpoint_files import write_durably


class WandbSink(Sink):
    """In offline mode, ``wandb sync RUN/wandb/offline-run-*`` uploads the run later. A resumed run stays the same W&B run."""

    def __init__(self, config: RunConfig) -> None:
        import wandb

        settings = config.wandb
        self._run = wandb.init(
            entity=settings.entity,
            project=settings.project,
            group=settings.group,
            name=config.name,
            mode=settings.mode,
            dir=str(config.directory.absolute()),
            id=_id(config.directory),
            resume="allow",
            config=config.model_dump(mode="json"),
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        # W&B's own step counter never goes back, but a run that has lost a rank does.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"step": step, **metrics})

    def count(self, totals: Mapping[str, int]) -> None:
        self._run.summary.update(dict(totals))

    def close(self) -> None:
        self._run.finish()


def check_login(settings: Wandb) -> None:
    """Raises ConfigError if W&B would ask for a key."""
    import wandb

    if settings.mode == "online" and not wandb.login(prompt=False, verify=False):
        raise ConfigError(
            "wandb.mode: online needs a key, and there is none; set WANDB_API_KEY, run wandb login, or set offline"
        )


def _id(directory: Path) -> str:
    path = directory / "wandb-id.txt"
    if not path.is_file():
        write_durably(path, uuid.uuid4().hex[:8] + "\n")
    return path.read_text(encoding="utf-8").strip()
