"""An actor that would work on other GPUs than its own ends before its model loads, and says why."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError

from actors.cluster.placement import actor_options
from actors.cluster.visible_gpus import NOSET, WrongGpusError, judge
from actors.engines.generator import Generator
from actors.engines.specs import generator_spec
from actors.trainer.group import TrainerGroup
from actors.trainer.rank import TrainerRank
from tests.ray.conftest import demo, kill

ON_GPUS = ("pools.generator.gpus=1", "pools.trainer.gpus=1", "sync.backend=host")


def test_every_gpu_of_the_node_seen_names_the_variable_that_does_it() -> None:
    with pytest.raises(WrongGpusError, match=rf"on node 10\.0\.0\.1 Ray assigned GPU 3 to this process, which sees 8.*{NOSET}"):
        judge(["3"], 8, "10.0.0.1")


@pytest.mark.parametrize("assigned", [["0"], ["4", "5"], []])
def test_as_many_as_assigned_are_its_own(assigned: list[str]) -> None:
    judge(assigned, len(assigned), "node")


@pytest.mark.usefixtures("ray_cluster")
def test_a_generator_that_sees_fewer_than_ray_assigned_does_not_load() -> None:
    """Ray is told of GPUs that this machine does not have, as a node with a broken driver would be."""
    config, prepared = demo(*ON_GPUS)
    options = actor_options(config, "generator", uses_vllm=True)
    made = ray.remote(Generator).options(**options).remote(generator_spec(config, prepared))
    try:
        with pytest.raises(ActorDiedError, match=r"Ray assigned GPU [01] to this process, which sees none: check"):
            ray.get(made.ready.remote(), timeout=120)
    finally:
        kill([made])


@pytest.mark.usefixtures("ray_cluster")
def test_a_trainer_rank_that_sees_fewer_than_ray_assigned_does_not_load(monkeypatch: Any) -> None:
    from actors.trainer.messages import RankSpec
    from renio_pipeline.models import info

    config, prepared = demo(*ON_GPUS)
    spec = RankSpec(model=info.resolve(config.student), trainer=config.trainer, steps=1, seed=0, on_gpu=True)
    rank = ray.remote(TrainerRank).options(**actor_options(config, "trainer")).remote(spec, 0, 1)
    group = TrainerGroup([rank], config, prepared.vocab_size, None)
    try:
        with pytest.raises(WrongGpusError, match="which sees none"):
            ray.get(rank.setup.remote("127.0.0.1", 1), timeout=120)
    finally:
        group.end()
