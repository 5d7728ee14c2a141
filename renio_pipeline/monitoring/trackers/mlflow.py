"""The metrics as an MLflow run."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.monitoring.trackers.sink import Status, Tracked, Tracker
from renio_pipeline.run_dir.secret_values import hidden

_SERVERS = ("http", "https", "databricks", "databricks-uc")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_ENDS: dict[Status, str] = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_PARAMS = 100  # in one request, MLflow's limit


class MlflowRun(Tracker):
    """A step that is trained again is logged again; of two values, the later one is the metric's."""

    def __init__(self, tracked: Tracked) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        config, settings = tracked.config, tracked.config.mlflow
        uri, own = tracking_uri(config)
        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(settings.experiment)
        try:
            # Without a place for artifacts, MLflow makes a folder in the working directory for them.
            place = (config.directory.absolute() / "mlartifacts").as_uri() if own else None
            experiment = found.experiment_id if found else self._client.create_experiment(settings.experiment, place)
        except MlflowException:  # another run has created it in the meantime
            experiment = self._client.get_experiment_by_name(settings.experiment).experiment_id

        def new() -> str:
            return str(self._client.create_run(experiment, run_name=config.name).info.run_id)

        self._id = tracked.identity("mlflow", new)
        try:
            self._client.update_run(self._id, status="RUNNING")  # a resumed run had ended
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._id = tracked.identity("mlflow", new, again=True)  # it is at another server, or was deleted
        self._configure(tracked.flat())
        server = uri.startswith("http")
        link = f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{self._id}"
        self.where = str(hidden(link if server else f"`mlflow ui --backend-store-uri {uri}` shows run {self._id}"))

    def _configure(self, values: dict[str, Any]) -> None:
        """Parameters, which MLflow never changes: what a resume has changed becomes a tag."""
        from mlflow.entities import Param

        before = self._client.get_run(self._id).data.params
        given = {_name(key): _text(value) for key, value in values.items()}
        new = [Param(key, text) for key, text in given.items() if key not in before]
        for start in range(0, len(new), _PARAMS):
            self._client.log_batch(self._id, params=new[start : start + _PARAMS])
        for key, text in given.items():
            if before.get(key, text) != text:
                self._client.set_tag(self._id, f"resumed.{key}", text)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(_name(name), value, now, step) for name, value in metrics.items()])

    def count(self, step: int, totals: Mapping[str, int]) -> None:
        self.log(step, totals)

    def finish(self, status: Status, error: str | None) -> None:
        if error:
            self._client.set_tag(self._id, "error", error[:5000])
        self._client.set_terminated(self._id, _ENDS[status])


def tracking_uri(config: RunConfig) -> tuple[str, bool]:
    """Where MLflow keeps runs, and whether that is a database in the run's own directory."""
    given = config.mlflow.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    return (given, False) if given else (f"sqlite:///{config.directory.absolute()}/mlflow.db", True)


def check(config: RunConfig) -> None:
    """Raises ConfigError for an address that MLflow cannot use."""
    uri, _ = tracking_uri(config)
    key = "mlflow.tracking_uri" if config.mlflow.tracking_uri else "MLFLOW_TRACKING_URI"
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme in _DATABASES:
        if find_spec("sqlalchemy") is None:
            raise ConfigError(f"{key}: a {scheme} database needs the whole of MLflow, not mlflow-skinny; pip install mlflow")
    elif scheme not in _SERVERS:
        shown = hidden(uri)
        raise ConfigError(
            f"{key}: {shown!r} is no address that can be used; allowed: {', '.join(f'{s}:' for s in (*_SERVERS, *_DATABASES))} "
            "(MLflow keeps no new runs in folders; sqlite:///FILE is a file)"
        )


def _name(name: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", name)


def _text(value: Any) -> str:
    return str(value)[:6000]  # MLflow's limit; a task's prompts may be longer
