"""How much an engine does at a time: vLLM's own rule, followed without vLLM; and a run's record of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.config.schema import Teacher
from renio_pipeline.planning.devices import DEVICES
from renio_pipeline.planning.limits import Recorded, engine_limits
from renio_pipeline.stages.engine_limits import GIB, EngineLimits, batch_tokens, offline_limits, read_limits, record_limits
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


GPUS = {"generator": {"gpus": 1}, "teacher": {"gpus": 1}}
FULL = EngineLimits(sequences=1024, batched_tokens=16384, cache_tokens=500_000)


def planned(before: dict[str, Any], now: dict[str, Any], device: str | None = None) -> EngineLimits:
    """A generator's limits in a plan with the options ``now``, from a run with the options ``before``, recorded as FULL."""
    run, config = (make_config(generator={"engine": options}, pools=GPUS) for options in (before, now))
    recorded = Recorded(run, {"generator": FULL})
    found = engine_limits(config, DEVICES[device] if device else None, recorded, prompt=256.0, teacher_prompt=256.0)
    return found["generator"]


def test_a_plan_takes_the_limits_of_the_run_that_it_has_its_rates_from() -> None:
    assert planned({}, {}) == FULL
    assert planned({}, {"max_num_seqs": 512}) == replace(FULL, sequences=512)
    assert planned({"max_num_seqs": 1024}, {"max_num_seqs": 1024}) == FULL


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"max_num_seqs": 1024}, {}),  # what vLLM would have chosen is not known
        ({}, {"performance_mode": "throughput"}),
        ({"enable_chunked_prefill": False}, {}),
    ],
)
def test_a_record_of_engines_with_other_options_does_not_count(before: dict[str, Any], now: dict[str, Any]) -> None:
    assert planned(before, now, "a100") == offline_limits(now, context=256 + 512 + 1, memory=79.2 * GIB, device="a100")


def test_a_run_without_a_record_leaves_the_rule() -> None:
    config = make_config(pools=GPUS)
    found = engine_limits(config, DEVICES["h100"], Recorded(config), prompt=256.0, teacher_prompt=256.0)
    assert found["generator"].sequences == found["teacher"].sequences == 1024


def test_a_torch_teacher_has_no_engine() -> None:
    config = make_config(teacher={"model": "m", "type": "torch"})
    assert set(engine_limits(config, None, Recorded(), prompt=64.0, teacher_prompt=64.0)) == {"generator"}
    assert batch_tokens(config.teacher, None) == 16384


def test_a_teachers_call_is_what_its_engine_does_in_a_step_unless_the_user_says_otherwise() -> None:
    limits = EngineLimits(sequences=256, batched_tokens=8192)
    assert batch_tokens(Teacher(), limits) == 8192
    assert batch_tokens(Teacher(max_batch_tokens=100), limits) == 100


def test_a_runs_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    limits = {"generator": EngineLimits(sequences=256, batched_tokens=4096, cache_tokens=12345)}
    record_limits(tmp_path, limits)
    assert read_limits(tmp_path) == limits
    assert read_limits(tmp_path / "earlier") == {}  # a run of an earlier version has none


@pytest.mark.parametrize("text", ["{", '{"generator": {"seqs": 1}}', "[]"])
def test_a_record_that_cannot_be_read_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "engines.json").write_text(text)
    with pytest.raises(ConfigError, match=r"--from: .*engines\.json.* cannot be read"):
        read_limits(tmp_path)
