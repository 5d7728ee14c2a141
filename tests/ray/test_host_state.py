"""The optimizer's state comes back from host memory bit for bit, and training goes on as if it had never left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import ray
import torch

from actors.cluster.placement import actor_options
from actors.pools.worker import CONTROL
from actors.trainer.group import TrainerGroup
from actors.trainer.messages import RankSpec
from actors.trainer.offload import _bytes, _movable, _optimizer_storages
from actors.trainer.rank import TrainerRank
from renio_pipeline.models import info
from renio_pipeline.types import TrainBatch
from tests.ray.conftest import demo, run, samples_of

STEPS = 3


class ReusedRank(TrainerRank):
    """A rank that becomes another one: starting a process costs more than the cases."""

    def become(self, spec: RankSpec, address: str, port: int) -> None:
        TrainerRank.__init__(self, spec, self._rank, self._world_size)
        self.setup(address, port)

    def held(self) -> list[bytes]:
        """What the optimizer holds, storage by storage."""
        return sorted(_bytes(storage).clone().numpy().tobytes() for storage in _optimizer_storages(self._engine))

    def as_from_a_file(self) -> None:
        """A storage that numpy has seen cannot be resized any more, nor can one that a checkpoint was read into."""
        for tensor in _movable(self._engine):
            tensor.detach().view(-1).view(torch.uint8).numpy()

    def holds_nothing(self) -> bool:
        return not _optimizer_storages(self._engine)


class Rank:
    """One rank, for many engine configurations."""

    def __init__(self) -> None:
        self.config, self.prepared = demo("trainer.lr=0.001", "objective={type: sampled}")
        self.spec = RankSpec(model=info.resolve(self.config.student), trainer=self.config.trainer, steps=10, seed=0)
        actor = ray.remote(concurrency_groups={CONTROL: 1})(ReusedRank).options(**actor_options(self.config, "trainer"))
        self.actor = actor.remote(self.spec, 0, 1)
        self.address = ray.get(self.actor.address.remote())
        self.group = TrainerGroup([self.actor], self.config, self.prepared.vocab_size, None)
        self.samples = samples_of(self.prepared, 4)

    def become(self, **trainer: Any) -> None:
        spec = replace(self.spec, trainer=self.config.trainer.model_copy(update=trainer))
        self.call("become", spec, *self.address)

    def call(self, method: str, *args: Any) -> Any:
        return ray.get(getattr(self.actor, method).remote(*args))

    def train(self, step: int) -> None:
        run(self.group.train(TrainBatch(step=step, samples=tuple(self.samples))))


@pytest.fixture(scope="module")
def rank(ray_cluster: None) -> Iterator[Rank]:
    made = Rank()
    yield made
    made.group.end()


def weights(rank: Rank, **trainer: Any) -> dict[str, np.ndarray]:
    """After some steps, between which the state is away where ``trainer`` says so."""
    rank.become(**trainer)
    for step in range(1, STEPS + 1):
        run(rank.group.onload())
        rank.train(step)
        if step == 2:
            rank.call("as_from_a_file")
        run(rank.group.offload())
    found: dict[str, np.ndarray] = rank.call("state")
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_training_goes_on_bit_for_bit(rank: Rank, zero_stage: int, dtype: str) -> None:
    expected = weights(rank, zero_stage=zero_stage, dtype=dtype)
    found = weights(rank, zero_stage=zero_stage, dtype=dtype, offload="optimizer")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)

    assert rank.call("holds_nothing"), "the state was not away, so the test tests nothing"
    run(rank.group.offload())  # again
    run(rank.group.onload())
    held = rank.call("held")
    numbers = sum(value.size for value in expected.values())
    least = {("float32", 0): 8}.get(
        (dtype, zero_stage), 12
    )  # bytes a weight: two moments, and a master unless it is the weight
    assert sum(map(len, held)) >= least * numbers
    run(rank.group.offload())
    run(rank.group.onload())
    run(rank.group.onload())  # again
    assert rank.call("held") == held


def test_without_the_option_nothing_leaves(rank: Rank) -> None:
    weights(rank, zero_stage=2)
    assert not rank.call("holds_nothing")
