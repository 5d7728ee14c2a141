"""The metrics as a SwanLab run."""

from __future__ import annotations

from collections.abc import Mapping

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.monitoring.trackers.sink import Status, Tracked, Tracker

_ENDS: dict[Status, str] = {"finished": "success", "failed": "crashed", "interrupted": "aborted"}


class SwanlabRun(Tracker):
    """SwanLab never changes a step: of one that is trained again, the first values stay."""

    def __init__(self, tracked: Tracked) -> None:
        import swanlab

        config, settings = tracked.config, tracked.config.swanlab
        own = {"interactive": False, "terminal": {"proxy_type": "none"}, "probe": {"monitor": False}}
        self._run = swanlab.init(
            mode=settings.mode,
            project=settings.project,
            workspace=settings.workspace,
            name=config.name,
            log_dir=str(config.directory.absolute() / "swanlog"),
            id=tracked.identity("swanlab"),
            resume="allow",
            config=tracked.values(),
            settings=swanlab.Settings(**own),
        )
        local = f"`swanlab sync {self._run.dir}` uploads the run later"
        self.where = self._run.url if settings.mode == "online" else local

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def count(self, step: int, totals: Mapping[str, int]) -> None:
        self._run.log(dict(totals), step=step)

    def finish(self, status: Status, error: str | None) -> None:
        self._run.finish(state=_ENDS[status], error=error)


def check(config: RunConfig) -> None:
    """Raises ConfigError if SwanLab would ask for a key."""
    import swanlab

    if config.swanlab.mode == "online" and not swanlab.Settings().api_key:
        raise ConfigError(
            "swanlab.mode: online needs a key, and there is none; set SWANLAB_API_KEY, run swanlab login, or set offline"
        )
