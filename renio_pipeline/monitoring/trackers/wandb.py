"""The metrics as a Weights & Biases run."""

from __future__ import annotations

from collections.abc import Mapping

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.monitoring.trackers.sink import Status, Tracked, Tracker


class WandbRun(Tracker):
    """A step that is trained again is logged again; of two values, W&B's summary has the later one."""

    def __init__(self, tracked: Tracked) -> None:
        import wandb

        config, settings = tracked.config, tracked.config.wandb
        self._run = wandb.init(
            entity=settings.entity,
            project=settings.project,
            group=settings.group,
            name=config.name,
            mode=settings.mode,
            dir=str(config.directory.absolute()),
            id=tracked.identity("wandb"),
            resume="allow",
            config=tracked.values(),
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        # W&B's own step counter never goes back, but a run that has lost a rank does.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self.where = (
            settings.mode == "online" and self._run.url
        ) or f"`wandb sync {config.directory}/wandb/offline-run-*` uploads the run later"

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"step": step, **metrics})

    def count(self, step: int, totals: Mapping[str, int]) -> None:
        self._run.summary.update(dict(totals))

    def finish(self, status: Status, error: str | None) -> None:
        import wandb

        code = 0 if status == "finished" else 1
        self._run.finish(exit_code=code)
        wandb.teardown(exit_code=code)  # its process, which would be killed with what Ray leaves behind, and complain


def check(config: RunConfig) -> None:
    """Raises ConfigError if W&B would ask for a key."""
    import wandb

    if config.wandb.mode == "online" and not wandb.login(prompt=False, verify=False):
        raise ConfigError(
            "wandb.mode: online needs a key, and there is none; set WANDB_API_KEY, run wandb login, or set offline"
        )
