"""Experiment trackers: none delays or ends a run, whatever it does; and what the libraries themselves hold afterwards."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.metrics.sink import read_jsonl
from renio_pipeline.monitoring.sinks import TRACKERS, check_sinks, file_sinks
from renio_pipeline.monitoring.trackers import sink as sinks_of_trackers
from renio_pipeline.monitoring.trackers.sink import Status, Tracker, TrackerSink, until_the_end
from renio_pipeline.preflight import Prepared
from renio_pipeline.run_dir.fence import LeaseLostError
from renio_pipeline.run_dir.starts import record_start, starts
from tests.fakes.stages import prepared, run_of
from tests.unit.conftest import make_config
from tests.unit.loop.test_lookahead import service_of
from tests.unit.monitoring.test_sinks import needs

__all__ = ["prepared"]  # a fixture


class Recorder(Tracker):
    """A tracker that keeps what it is told, or does what ``log`` says instead."""

    where = "here"

    def __init__(self, log: Callable[[int], None] = lambda step: None) -> None:
        self.steps: list[int] = []
        self.totals: list[tuple[int, dict[str, int]]] = []
        self.ends: list[tuple[Status, str | None]] = []
        self._log = log

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._log(step)
        self.steps.append(step)

    def count(self, step: int, totals: Mapping[str, int]) -> None:
        self.totals.append((step, dict(totals)))

    def finish(self, status: Status, error: str | None) -> None:
        self.ends.append((status, error))


def sink_of(tracker: Tracker) -> tuple[TrackerSink, list[str]]:
    said: list[str] = []
    return TrackerSink("it", lambda: tracker, said.append), said


def test_a_tracker_gets_every_step_in_order_and_totals_when_they_change() -> None:
    tracker = Recorder()
    sink, said = sink_of(tracker)
    for step, total in ((1, 0), (2, 0), (3, 5), (4, 5), (5, 6)):
        sink.write(step, {"loss": 1.0})
        sink.count({"replayed/steps": total})
    asyncio.run(sink.on_run_end(None))
    sink.close()
    sink.close()
    assert tracker.steps == [1, 2, 3, 4, 5]
    assert tracker.totals == [(3, {"replayed/steps": 5}), (5, {"replayed/steps": 6})]
    assert tracker.ends == [("finished", None)]
    assert said == ["it: here"]


def test_a_tracker_that_cannot_begin_is_said_once_and_the_run_goes_on() -> None:
    said: list[str] = []

    def begin() -> Tracker:
        raise ConnectionError("no route to http://me:secret@host\nand more")

    sink = TrackerSink("it", begin, said.append)
    for step in range(1, 4):
        sink.write(step, {})
    sink.close()
    assert said == ["it: it cannot be used (ConnectionError: no route to http://***@host); the run goes on without it"]


def test_records_that_are_not_taken_are_said_at_once_and_counted_at_the_end() -> None:
    def log(step: int) -> None:
        if step in (2, 4):
            raise TimeoutError

    tracker = Recorder(log)
    sink, said = sink_of(tracker)
    for step in range(1, 6):
        sink.write(step, {})
    sink.close()
    assert tracker.steps == [1, 3, 5]
    assert said[1:] == [
        "it: a record was not taken (TimeoutError); the run goes on",
        "it: 2 records did not reach it; metrics.jsonl has every figure",
    ]


def test_a_tracker_that_hangs_delays_no_step_and_the_end_for_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(sinks_of_trackers, "WAITING", 3)
    monkeypatch.setattr(sinks_of_trackers, "INTERRUPTED_SECONDS", 0.2)
    sink, said = sink_of(Recorder(lambda step: released.wait() and None))
    for step in range(1, 100):
        sink.write(step, {})  # returns at once, or this test would never end
    sink.close()
    released.set()
    assert said[-1].startswith("it: it still has")


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (None, [("interrupted", None)]),
        (RuntimeError("a bad hf_abcdefghijklmnopqrst"), [("failed", "RuntimeError: a bad ***")]),
        (SystemExit(143), [("interrupted", None)]),
        (LeaseLostError("gone"), []),
    ],
    ids=repr,
)
def test_a_run_that_ends_before_its_first_step_is_ended_at_the_tracker(error: BaseException | None, end: list[Any]) -> None:
    tracker = Recorder()
    sink, _ = sink_of(tracker)

    def engines() -> None:
        with until_the_end([sink]):
            if error is not None:
                raise error

    if error is None:
        engines()
    else:
        with pytest.raises(type(error)):
            engines()
    assert tracker.ends == end


def test_what_a_start_was_is_recorded_without_passwords(tmp_path: Path) -> None:
    given = ["steps=3", "pools.trainer.env.MY_TOKEN=abc", "pools.trainer.env.NCCL_DEBUG=INFO", "a=hf_abcdefghijklmnopqrst"]
    record_start(tmp_path, 4, ["/opt/bin/renio", "train", "--config", "my file.yaml", *given], given)
    (line,) = starts(tmp_path)
    told = ["steps=3", "pools.trainer.env.MY_TOKEN=***", "pools.trainer.env.NCCL_DEBUG=INFO", "a=***"]
    assert line["overrides"] == told
    assert line["command"].startswith("renio train --config 'my file.yaml' steps=3 'pools.trainer.env.MY_TOKEN=***'")
    assert (line["from_step"], line["versions"].keys() >= {"python", "torch", "transformers"}) == (4, True)


def test_addresses_that_mlflow_cannot_use_are_refused() -> None:
    check = pytest.importorskip("renio_pipeline.monitoring.trackers.mlflow").check
    for uri in ("./mlruns", "file:///tmp/mlruns", "htp://host"):
        with pytest.raises(ConfigError, match=r"mlflow.tracking_uri: '.*' is no address that can be used; allowed: http:"):
            check(make_config(mlflow={"tracking_uri": uri}))
    check(make_config(mlflow={"tracking_uri": "https://host"}))


# What follows is done with the libraries themselves. Of a run of six steps a trainer rank is lost in the fourth and the sixth;
# then it is resumed for two more, as after a crash: its driver never ended the run at the tracker.

KEYS = {
    "mlflow": {},
    "trackio": {"trackio": {"project": "renio-test"}},
    "swanlab": {"swanlab": {"mode": "offline"}},
    "wandb": {"wandb": {"mode": "offline"}},
}


@pytest.fixture(scope="session")
def trackio_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("trackio")
        patch.setenv("TRACKIO_DIR", str(folder))  # the library reads it once
        yield folder


def go(tmp_path: Path, prepared: Prepared, tracker: str, **keys: Any) -> tuple[Any, list[str]]:
    run = service_of(
        tmp_path, prepared, sinks=[tracker], checkpoint={"every": 2}, evaluate={"problems": 0}, **KEYS[tracker], **keys
    )
    check_sinks(run.config)
    said: list[str] = []
    run.sinks = file_sinks(run.config, run.directory, 0, said.append, ["steps=6", "pools.trainer.env.A_TOKEN=secret"])
    return run, said


def wentback(tmp_path: Path, prepared: Prepared, tracker: str) -> tuple[Any, list[str]]:
    run, said = go(tmp_path, prepared, tracker, steps=6)
    run.stages.trainers.lost_in = [4, 6]
    asyncio.run(run.run())
    assert run.replayed["steps"] == 2
    return run, said


@pytest.mark.slow
@needs("mlflow")
def test_mlflow_has_every_step_and_a_resumed_run_goes_on(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run, said = wentback(tmp_path, prepared, "mlflow")
    client = MlflowClient(tracking_uri=f"sqlite:///{run.directory.path.absolute()}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "renio"]
    (found,) = client.search_runs([experiment.experiment_id])
    name = "pivotal/fraction"
    history = {m.step: m.value for m in sorted(client.get_metric_history(found.info.run_id, name), key=lambda m: m.timestamp)}
    assert history == {int(line["step"]): line[name] for line in read_jsonl(run.directory.metrics)}
    assert list(history) == [1, 2, 3, 4, 5, 6]
    assert found.data.metrics["replayed/steps"] == 2
    assert found.data.params["trainer.lr"] == str(run.config.trainer.lr)
    assert "A_TOKEN=***" in found.data.params["overrides"]
    assert found.info.status == "FINISHED"
    assert said == [f"mlflow: `mlflow ui --backend-store-uri {client.tracking_uri}` shows run {found.info.run_id}"]

    failing, _ = go(tmp_path, prepared, "mlflow", steps=8)
    failing.stages.trainers.begin = failing.stages.trainers.train = failing.stages.trainers.publish = None  # a bug
    with pytest.raises(TypeError):
        asyncio.run(failing.run())
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FAILED"
    assert found.data.tags["error"].startswith("TypeError")
    assert (found.data.params["steps"], found.data.tags["resumed.steps"]) == ("6", "8")


@pytest.mark.slow
@needs("mlflow")
def test_a_server_that_is_not_there_does_not_end_the_run(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = run_of(tmp_path, prepared, sinks=["mlflow"], mlflow={"tracking_uri": "http://127.0.0.1:9"}, trace={"steps": 0})
    said: list[str] = []
    run.sinks = file_sinks(run.config, run.directory, 0, said.append)
    asyncio.run(run.run())
    assert len(read_jsonl(run.directory.metrics)) == 3
    (told,) = said
    assert told.startswith("mlflow: it cannot be used (")


@pytest.mark.slow
@needs("trackio")
def test_trackio_has_every_step_and_a_resumed_run_goes_on(tmp_path: Path, prepared: Prepared, trackio_folder: Path) -> None:
    run, said = wentback(tmp_path, prepared, "trackio")
    name = (run.directory.path / "trackio-id.txt").read_text().strip()
    assert said == [f"trackio: `trackio show --project renio-test` shows run {name}"]
    logs = trackio_logs(name)
    history = {row["step"]: row["pivotal/fraction"] for row in logs if "pivotal/fraction" in row}
    assert history == {int(line["step"]): line["pivotal/fraction"] for line in read_jsonl(run.directory.metrics)}
    assert [row["replayed/steps"] for row in logs if "replayed/steps" in row][-1] == 2

    failing, _ = go(tmp_path, prepared, "trackio", steps=8)
    failing.stages.trainers.publish = None  # a bug
    with pytest.raises(TypeError):
        asyncio.run(failing.run())
    from trackio.sqlite_storage import SQLiteStorage

    assert [r["name"] for r in SQLiteStorage.get_run_records("renio-test") if r["name"].startswith(run.config.name)] == [name]
    assert "run failed" in str(SQLiteStorage.get_alerts("renio-test"))


def trackio_logs(run: str) -> list[dict[str, Any]]:
    from trackio.sqlite_storage import SQLiteStorage

    return sorted(SQLiteStorage.get_logs("renio-test", run), key=lambda row: row["timestamp"])


@pytest.mark.slow
@needs("swanlab")
def test_swanlab_keeps_a_run_offline_with_every_step_once(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run, said = wentback(tmp_path, prepared, "swanlab")
    (folder,) = (run.directory.path / "swanlog").glob("run-*")
    assert said == [f"swanlab: `swanlab sync {folder.absolute()}` uploads the run later"]
    records = swanlab_records(folder)
    steps = [int(r["scalar"]["step"]) for r in records if r.get("scalar", {}).get("key") == "pivotal/fraction"]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert [r["finish"]["state"] for r in records if "finish" in r] == ["RUN_STATE_FINISHED"]
    (run_id,) = (run.directory.path / "swanlab-id.txt").read_text().split()
    assert [r["start"]["id"] for r in records if "start" in r] == [run_id]
    kept = (folder / "files" / "config.yaml").read_text()
    assert "A_TOKEN=***" in kept
    assert "micro_batch_tokens" in kept
    assert "secret" not in kept


def swanlab_records(folder: Path) -> list[dict[str, Any]]:
    """What ``swanlab sync`` would send."""
    from google.protobuf.json_format import MessageToDict
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    (path,) = folder.glob("run-*.swanlab")
    reader = DataStoreReader()
    reader.open(str(path))
    return [MessageToDict(Record.FromString(data), preserving_proto_field_name=True) for data in reader]


@needs("swanlab")
def test_swanlab_online_without_a_key_is_an_error_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SWANLAB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"swanlab.mode: online needs a key"):
        check_sinks(make_config(sinks=["swanlab"]))


@needs("trackio")
def test_a_space_of_trackio_without_a_token_is_an_error_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ConfigError, match=r"trackio.space: a Space needs a token"):
        check_sinks(make_config(sinks=["trackio"], trackio={"space": "me/board"}))


def test_every_tracker_has_a_section_and_an_extra() -> None:
    import tomllib

    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert TRACKERS.keys() <= extras.keys() & type(make_config()).model_fields.keys()
