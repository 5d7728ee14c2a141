"""Engine options that vLLM accepts and that break an assumption: each is refused with the reason, before a model loads."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from renio_pipeline.config import ConfigError, parse
from renio_pipeline.models.info import check_packed_bytes
from renio_pipeline.preflight import prepare
from tests.unit.conftest import make_config, values

BREAKING = [
    ("pipeline_parallel_size", 2, "weights would not reach all of them; raise generator.tensor_parallel"),
    ("prefill_context_parallel_size", 2, "weights would not reach all of them"),
    ("nnodes", 2, "a replica lies on one node"),
    ("data_parallel_size", 2, "every engine has requests, weights and a place of its own; leave it out, and raise"),
    ("data_parallel_size_local", 2, "every engine has requests, weights and a place of its own"),
    ("data_parallel_hybrid_lb", True, "every engine has requests, weights and a place of its own"),
    ("speculative_config", {"method": "ngram"}, "a draft model would keep its old weights"),
    ("spec_tokens", 1, "a draft model would keep its old weights"),
    ("enable_batch_sharded_sampling", True, "tokens that the teacher lacks would be sampled"),
    ("device_ids", [0], "Ray assigns a replica its GPUs; use pools.*.gpus"),
    ("worker_cls", "mine.Worker", "through vLLM's own worker"),
    ("kv_transfer_config", {"kv_connector": "x"}, "outlive a weight sync"),
    ("kv_offloading_size", 4.0, "outlive a weight sync"),
]


def refusal(**changes: Any) -> str:
    with pytest.raises((ConfigError, ValidationError)) as raised:
        parse(values(**changes))
    return str(raised.value)


@pytest.mark.parametrize(("option", "value", "reason"), BREAKING)
def test_an_option_that_breaks_an_assumption_is_refused_with_the_reason(option: str, value: Any, reason: str) -> None:
    text = refusal(generator={"engine": {option: value}})
    assert f"generator.engine.{option} ({value!r})" in text
    assert reason in text


@pytest.mark.parametrize(
    "options",
    [
        {"pipeline_parallel_size": 1, "data_parallel_size": 1, "nnodes": 1, "node_rank": 0},
        {"speculative_config": None, "enable_batch_sharded_sampling": False, "kv_transfer_config": None},
        {"decode_context_parallel_size": 2, "max_num_seqs": 8, "enable_prefix_caching": False},
    ],
)
def test_values_that_switch_an_option_off_pass(options: dict[str, Any]) -> None:
    assert make_config(generator={"engine": options}).generator.engine == options


def test_a_teacher_that_never_changes_may_keep_its_cache_elsewhere() -> None:
    engine = {"kv_offloading_size": 4.0}
    assert make_config(teacher={"model": "embedded:teacher", "engine": engine}).teacher.engine == engine
    follows = {"method": {"type": "opsd", "teacher": "latest"}, "teacher": {"engine": engine}}
    assert "teacher.engine.kv_offloading_size (4.0)" in refusal(**follows)


COLOCATED = {
    "placement": "colocated",
    "pools": {"generator": {"gpus": 1}, "trainer": {"gpus": 1}},
    "generator": {"engine": {"gpu_memory_utilization": 0.5}},
}


def test_ipc_with_an_engine_in_a_process_of_its_own_is_refused() -> None:
    generator = COLOCATED["generator"] | {"separate_process": True}  # type: ignore[operator]
    text = refusal(**COLOCATED | {"sync": {"backend": "ipc"}, "generator": generator})
    assert "set generator.separate_process=false, or sync.backend=host" in text


def test_a_buffer_below_the_largest_tensor_is_refused_with_what_it_takes() -> None:
    sync = {"backend": "ipc", "packed_bytes": 1000}
    with pytest.raises(ConfigError, match=r"sync\.packed_bytes: 1000 given, .*weight of 'embedded:student' has \d+ bytes"):
        prepare(make_config(**COLOCATED, sync=sync))
    check_packed_bytes("embedded:student", 2**20, 4)


def test_a_rank_waits_for_the_others_longer_than_any_of_them_may_take() -> None:
    faults = make_config(faults={"transfer_seconds": 3000.0, "start_seconds": 100.0}).faults
    assert faults.collective_seconds > 3000 + 2 * 30  # the graces in which a failed transfer is ended
    assert make_config(faults={"transfer_seconds": 30.0, "start_seconds": 5000.0}).faults.collective_seconds > 5000


@pytest.mark.parametrize("variable", ["CUDA_VISIBLE_DEVICES", "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"])
def test_a_pool_whose_environment_chooses_gpus_is_refused(variable: str) -> None:
    text = refusal(pools={"trainer": {"env": {variable: "0"}}})
    assert f"pools.trainer.env.{variable}: Ray assigns each replica its GPUs" in text
