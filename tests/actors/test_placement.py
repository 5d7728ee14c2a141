"""Placement colocated: which configurations it goes with, and what it asks of the cluster."""

from __future__ import annotations

from typing import Any

import pytest

from actors.cluster.checks import check_cluster, demands
from actors.cluster.placement import actor_options, half_gpu
from renio_pipeline.config import ConfigError, RunConfig
from tests.unit.conftest import make_config

GPU: dict[str, Any] = {"replicas": 4, "gpus": 1, "cpus": 2}
MEMORY: dict[str, Any] = {"engine": {"gpu_memory_utilization": 0.5}}


def colocated(**changes: Any) -> RunConfig:
    """Four generators and four ranks on four GPUs."""
    values = {"placement": "colocated", "pools": {"generator": GPU, "trainer": GPU}, "generator": MEMORY}
    return make_config(**values | changes)


@pytest.mark.parametrize("backend", ["host", "ipc"])
@pytest.mark.parametrize("offload", ["none", "optimizer"])
def test_it_goes_with_host_and_ipc_and_with_offloading(backend: str, offload: str) -> None:
    config = colocated(sync={"backend": backend}, trainer={"offload": offload})
    assert config.trainer.offload == offload


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"sync": {"backend": "nccl"}}, "share one; set sync.backend=host or ipc"),
    ({"max_staleness": 1}, "max_staleness must be 0, not 1"),
    ({"pools": {"generator": GPU | {"replicas": 2}, "trainer": GPU}}, r"pools.generator.replicas \(2\) must equal"),
    ({"pools": {"generator": GPU | {"gpus": 0.5}, "trainer": GPU}}, "the same GPUs, so they must be equal"),
    ({"pools": {"generator": GPU | {"gpus": 2}, "trainer": GPU | {"gpus": 2}}}, "share one GPU, or a part of one, not 2"),
    ({"generator": MEMORY | {"tensor_parallel": 2}}, "generator.tensor_parallel|tensor_parallel"),
    ({"generator": {}}, "set generator.engine.gpu_memory_utilization to the share that those leave"),
    ({"placement": "separate", "trainer": {"offload": "optimizer"}}, "set placement=colocated, or leave trainer.offload out"),
    ({"placement": "separate", "sync": {"backend": "ipc"}}, "set placement=colocated, or sync.backend=host or nccl"),
]


@pytest.mark.parametrize(("changes", "text"), REFUSED, ids=[text[-24:] for _, text in REFUSED])
def test_what_cannot_work_is_refused_with_the_key_to_change(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        colocated(**changes)


def test_on_a_cpu_nothing_has_to_be_said_of_a_gpus_memory() -> None:
    pool = {"replicas": 2, "cpus": 0.5}
    assert colocated(pools={"generator": pool, "trainer": pool}, generator={}).placement == "colocated"


def test_shared_gpus_count_once_and_every_generator_counts() -> None:
    asked = demands(colocated())
    assert asked["trainer"] == {"CPU": 8, "GPU": 4}
    assert asked["generator"] == {"CPU": 8, "GPU": 0}
    apart = demands(colocated(placement="separate"))
    assert apart["generator"] == {"CPU": 2, "GPU": 1}  # one will do


def test_a_cluster_that_is_too_small_is_refused() -> None:
    config = colocated()
    check_cluster(config, {"CPU": 18, "GPU": 4})
    with pytest.raises(ConfigError, match=r"the pools need at least 4 GPUs \(trainer 4\), and the cluster has 3"):
        check_cluster(config, {"CPU": 18, "GPU": 3})
    with pytest.raises(ConfigError, match=r"the pools need at least 17.1 CPUs \(generator 8, teacher 1, trainer 8"):
        check_cluster(config, {"CPU": 16, "GPU": 4})
    with pytest.raises(ConfigError, match=r"cpus: .* has 2; .*pools\.\*\.gpus: .* has 0; .*with 0, a pool runs on CPUs"):
        check_cluster(config, {"CPU": 2})


def test_each_of_two_has_half_of_the_gpu_and_all_of_its_own_cpus() -> None:
    assert half_gpu({"num_cpus": 2.0, "num_gpus": 1.0, "runtime_env": {}}) == {
        "num_cpus": 2.0,
        "num_gpus": 0.5,
        "runtime_env": {},
    }


@pytest.mark.parametrize(
    ("variable", "ours", "theirs"), [("OMP_WAIT_POLICY", "passive", "active"), ("MALLOC_TRIM_THRESHOLD_", str(2**30), "131072")]
)
def test_engines_on_a_cpu_do_not_spin_and_keep_memory_unless_their_pool_says_so(variable: str, ours: str, theirs: str) -> None:
    def found(**pool: Any) -> str | None:
        options = actor_options(make_config(pools={"trainer": pool}), "trainer")
        value: str | None = options["runtime_env"]["env_vars"].get(variable)
        return value

    assert found() == ours
    assert found(env={variable: theirs}) == theirs
    assert found(gpus=1) is None


@pytest.mark.parametrize("pool", ["generator", "teacher", "trainer"])
def test_nothing_is_compiled_on_a_cpu_unless_an_engines_options_ask_for_it(pool: str) -> None:
    def disabled(**changes: Any) -> bool:
        return "TORCHDYNAMO_DISABLE" in actor_options(make_config(**changes), pool)["runtime_env"]["env_vars"]

    compiled = {"engine": {"enforce_eager": False}}
    assert disabled()
    assert not disabled(pools={pool: {"gpus": 1}})
    assert disabled(generator=compiled) == (pool != "generator")
    assert disabled(teacher={"model": "embedded:teacher", **compiled}) == (pool != "teacher")


def test_the_key_value_cache_of_an_engine_on_a_cpu_is_what_its_options_say() -> None:
    options = actor_options(make_config(), "generator", uses_vllm=True)
    assert "VLLM_CPU_KVCACHE_SPACE" not in options["runtime_env"]["env_vars"], "vLLM lets it win over kv_cache_memory_bytes"
