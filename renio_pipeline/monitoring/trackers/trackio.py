"""The metrics as a Trackio run: in Trackio's own folder, or in a Space on the Hugging Face hub."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.monitoring.trackers.sink import Status, Tracked, Tracker


class TrackioRun(Tracker):
    """Trackio knows a run by its name, which gets an ending of its own. A step that is trained again is logged again."""

    def __init__(self, tracked: Tracked) -> None:
        import trackio

        config, settings = tracked.config, tracked.config.trackio
        self._alert, self._error = trackio.AlertLevel.WARN, trackio.AlertLevel.ERROR
        self._run = trackio.init(
            project=settings.project,
            name=tracked.identity("trackio", lambda: f"{config.name}-{uuid.uuid4().hex[:6]}"),
            space_id=settings.space,
            resume="allow",
            config=tracked.values(),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        url = f"https://huggingface.co/spaces/{settings.space}"
        self.where = url if settings.space else f"`trackio show --project {settings.project}` shows run {self._run.name}"

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def count(self, step: int, totals: Mapping[str, int]) -> None:
        self._run.log(dict(totals), step=step)

    def finish(self, status: Status, error: str | None) -> None:
        if status != "finished":  # Trackio has no status of a run, but alerts
            self._run.alert(f"run {status}", error, self._error if status == "failed" else self._alert)
        self._run.finish()


def check(config: RunConfig) -> None:
    """Raises ConfigError if a Space is given and there is no token for it."""
    from huggingface_hub import get_token

    if config.trackio.space and not get_token():
        raise ConfigError("trackio.space: a Space needs a token, and there is none; set HF_TOKEN, or run hf auth login")
