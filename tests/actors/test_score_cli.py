"""``renio score``, up to where Ray would start."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors import run_checks
from renio_pipeline.cli import main
from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.preflight import Prepared, prepare
from renio_pipeline.recordings.recorder import recorder
from renio_pipeline.stages.recorded_inputs import manifest_of
from tests.fakes.stages import config_of

AT = "2026-01-02T10:30:00"


def test_it_tells_the_template_the_time_of_the_recording_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str | None] = []

    def stop(config: RunConfig, clock: str | None = None) -> Prepared:
        told.append(clock)
        raise ConfigError("far enough")

    monkeypatch.setattr(run_checks, "prepare_locally", stop)
    config = config_of(objective={"type": "top_k_forward_kl", "k": 4}, data={"problems": 64})
    found = prepare(config)
    with recorder(tmp_path / "scores", manifest_of(config, found.tokenizer, found.vocab_size, AT)):
        pass
    for more in (["--out", str(tmp_path / "scores")], ["--out", str(tmp_path / "new"), "--reuse", str(tmp_path / "scores")]):
        assert main(["score", "--config", "configs/demo.yaml", "objective.type=sampled", *more]) == 2
    assert told == [AT] * 2
