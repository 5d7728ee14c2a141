"""How much an engine does at a time: vLLM's own rule, followed without vLLM; and a run's record of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.engine_limits import GIB, EngineLimits, batch_tokens, offline_limits, read_limits, record_limits
from renio_pipeline.planning.devices import DEVICES
from renio_pipeline.planning.limits import engine_limits
from renio_pipeline.schema import Teacher
from tests.unit.conftest import make_config


@pytest.mark.parametrize(
    ("options", "sequences", "batched"),
    [
        ({}, 1024, 16384),
        ({"max_num_seqs": 8}, 8, 12000),  # no more than these hold
        ({"max_num_batched_tokens": 512}, 512, 512),  # each sequence takes a token at least
        ({"performance_mode": "throughput"}, 2048, 32768),
        ({"max_num_seqs": 2048, "max_num_batched_tokens": 512}, 2048, 512),
    ],
)
def test_what_the_user_sets_counts_before_the_devices_own(options: dict[str, Any], sequences: int, batched: int) -> None:
    found = offline_limits(options, context=1500, memory=80 * GIB, device="h100")
    assert found == EngineLimits(sequences=sequences, batched_tokens=batched)


def test_a_long_context_is_one_step_only_where_prompts_are_not_cut() -> None:
    assert offline_limits({}, context=40_000, memory=80 * GIB, device="h100").batched_tokens == 16384
    whole = offline_limits({"enable_chunked_prefill": False}, context=40_000, memory=80 * GIB, device="h100")
    assert whole.batched_tokens == 40_000


def test_a_plan_takes_the_limits_of_the_run_that_it_has_its_rates_from() -> None:
    recorded = {"generator": EngineLimits(sequences=7, batched_tokens=70)}
    lengths = {"prompt": 256.0, "teacher_prompt": 256.0}
    config = make_config(pools={"generator": {"gpus": 1}, "teacher": {"gpus": 1}})
    found = engine_limits(config, DEVICES["h100"], recorded, **lengths)
    assert found["generator"] == recorded["generator"]
    assert found["teacher"].sequences == 1024
    set_by_user = make_config(generator={"engine": {"max_num_seqs": 9}}, pools={"generator": {"gpus": 1}})
    assert engine_limits(set_by_user, DEVICES["h100"], recorded, **lengths)["generator"].sequences == 9


def test_a_torch_teacher_has_no_engine() -> None:
    config = make_config(teacher={"model": "m", "type": "torch"})
    assert set(engine_limits(config, None, {}, prompt=64.0, teacher_prompt=64.0)) == {"generator"}
    assert batch_tokens(config.teacher, None) == 16384


def test_a_teachers_call_is_what_its_engine_does_in_a_step_unless_the_user_says_otherwise() -> None:
    limits = EngineLimits(sequences=256, batched_tokens=8192)
    assert batch_tokens(Teacher(), limits) == 8192
    assert batch_tokens(Teacher(max_batch_tokens=100), limits) == 100


def test_a_runs_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    limits = {"generator": EngineLimits(sequences=256, batched_tokens=4096, cache_tokens=12345)}
    record_limits(tmp_path, limits)
    assert read_limits(tmp_path) == limits


@pytest.mark.parametrize("text", [None, "{", '{"generator": {"seqs": 1}}', "[]"])
def test_a_run_without_a_readable_record_is_named(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "engines.json").write_text(text)
    with pytest.raises(ConfigError, match=r"--from: .*engines\.json.* cannot be read"):
        read_limits(tmp_path)
