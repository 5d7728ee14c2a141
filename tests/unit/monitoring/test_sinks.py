"""TensorBoard and trackers, which are optional: with the packages themselves, and what is said where they are missing."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.metrics.sink import JsonlSink, read_jsonl
from renio_pipeline.monitoring import sinks
from renio_pipeline.monitoring.sinks import TRACKERS, check_sinks, file_sinks
from renio_pipeline.monitoring.trace import Trace
from renio_pipeline.preflight import Prepared
from tests.fakes.stages import prepared, run_of
from tests.unit.conftest import make_config
from tests.unit.loop.test_lookahead import service_of

__all__ = ["prepared"]  # a fixture


def needs(package: str) -> pytest.MarkDecorator:
    reason = f"{package} is not installed: pip install '.[{package}]'"
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=reason)


@pytest.mark.parametrize("name", ["tensorboard", *TRACKERS])
def test_a_sink_whose_package_is_missing_is_an_error_that_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"sinks: {name} is not installed; pip install 'renio-pipeline\[{name}\]'"):
        check_sinks(make_config(sinks=[name]))
    check_sinks(make_config())


def test_a_sink_that_there_is_not_is_an_error_that_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match=r"sinks.*'comet' is not allowed; allowed: tensorboard, wandb, mlflow, trackio, swan"):
        make_config(sinks=["comet"])


def test_a_run_has_its_own_files_unless_the_trace_is_switched_off(tmp_path: Path, prepared: Prepared) -> None:
    for steps, expected in ((20, [JsonlSink, Trace]), (0, [JsonlSink])):
        run = run_of(tmp_path / str(steps), prepared, trace={"steps": steps})
        made = file_sinks(run.config, run.directory, 0)
        assert [type(sink) for sink in made] == expected
        for sink in made:
            sink.close()


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return [(event.step, event.value) for event in read.Scalars(name)]


@needs("tensorboard")
def test_tensorboard_shows_what_the_metrics_file_has_also_after_the_run_went_back(tmp_path: Path, prepared: Prepared) -> None:
    run = service_of(tmp_path, prepared, steps=6, sinks=["tensorboard"], checkpoint={"every": 2}, evaluate={"problems": 0})
    run.stages.trainers.lost_in = [4, 6]
    run.sinks = file_sinks(run.config, run.directory, 0)
    asyncio.run(run.run())
    assert run.replayed["steps"] == 2
    expected = [(line["step"], line["pivotal/fraction"]) for line in read_jsonl(run.directory.metrics)]
    found = scalars(run.directory.path / "tensorboard", "pivotal/fraction")
    assert [step for step, _ in found] == [step for step, _ in expected] == [1, 2, 3, 4, 5, 6]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-6)


@needs("wandb")
@pytest.mark.slow
def test_wandb_keeps_a_run_offline_with_every_step(tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    run = run_of(tmp_path, prepared, sinks=["wandb"], wandb={"mode": "offline", "project": "p"}, trace={"steps": 0})
    check_sinks(run.config)
    run.sinks = file_sinks(run.config, run.directory, 0)
    asyncio.run(run.run())
    lines = read_jsonl(run.directory.metrics)
    end = time.monotonic() + 20  # its own process closes the file, a moment after the run has taken leave of it
    while len(found := logged(run.directory.path)) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    assert [row["step"] for row in found] == [1, 2, 3]
    assert [row["loss"] for row in found] == [line["loss"] for line in lines]
    (run_id,) = (run.directory.path / "wandb-id.txt").read_text().split()
    assert next((run.directory.path / "wandb").glob("offline-run-*")).name.endswith(run_id)


def logged(run_dir: Path) -> list[dict[str, Any]]:
    """The history in an offline run's file: what ``wandb sync`` would send."""
    from wandb.proto import wandb_internal_pb2

    (path,) = (run_dir / "wandb").glob("offline-run-*/run-*.wandb")
    rows = []
    for data in blocks(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item})
    return rows


def blocks(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log, as wandb keeps them: after a head of 7 bytes, parts that end with their block of 32 KiB."""
    at, record = 7, b""
    while at + 7 <= len(data):
        if 0x8000 - at % 0x8000 < 7:
            at += 0x8000 - at % 0x8000
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record, at = record + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


@needs("wandb")
def test_wandb_online_without_a_key_is_an_error_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"wandb.mode: online needs a key"):
        check_sinks(make_config(sinks=["wandb"]))
