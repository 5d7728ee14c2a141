"""After a weight sync, generators and trainer give the same log-probabilities: on every kind of engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from actors.cluster.placement import actor_options
from actors.engines.generator import Generator, WriteRequest
from actors.engines.specs import generator_spec
from actors.pools.worker import CONTROL
from actors.trainer.group import TrainerGroup
from actors.trainer.messages import RankSpec
from actors.trainer.rank import TrainerRank
from actors.weight_sync.sender import SyncReceipt
from actors.weight_sync.wire import pack_chunks, put
from renio_pipeline.config import RunConfig
from renio_pipeline.models import info
from renio_pipeline.preflight import Prepared
from renio_pipeline.types import TrainBatch, TrainSample, Version
from tests.families.models import save
from tests.ray.conftest import demo, kill, run, samples_of, write

TEMPERATURE = 1.3
# The student's head is tied to its embedding, the teacher's is not. For each model, engines that take weights differently.
ENGINES = {
    "tied": ["student=embedded:student", ["generator.separate_process=false"], ["generator.separate_process=true"]],
    "untied": ["student=embedded:teacher", ["generator.tensor_parallel=1"], ["generator.tensor_parallel=2"]],
}


def start_generator(config: RunConfig, prepared: Prepared) -> Any:
    spec = generator_spec(config, prepared)
    options = actor_options(config, "generator", uses_vllm=True, separate_process=spec.separate_process)
    return ray.remote(Generator).options(**options).remote(spec)


def start_trainers(config: RunConfig, prepared: Prepared) -> TrainerGroup:
    spec = RankSpec(
        model=info.resolve(config.student),
        trainer=config.trainer,
        steps=config.steps,
        seed=config.seed,
        adapter_sync=config.sync.lora == "adapter",
    )
    actor = ray.remote(concurrency_groups={CONTROL: 1})(TrainerRank).options(**actor_options(config, "trainer"))
    size = config.pools.trainer.replicas
    return TrainerGroup([actor.remote(spec, rank, size) for rank in range(size)], config, prepared.vocab_size, None)


async def largest_gap(trainers: TrainerGroup, generator: Any, samples: Sequence[TrainSample]) -> float:
    """Largest difference of log-probabilities between the generator and the trainer, over the response tokens."""
    by_trainer = await trainers.logprobs(TrainBatch(step=1, samples=tuple(samples)))
    by_generator = await generator.score.remote([[*s.prompt_ids.tolist(), *s.response_ids.tolist()] for s in samples])
    gaps = [
        np.abs(scores[-len(s.response_ids) :] - by_trainer[s.sample_id]).max()
        for s, scores in zip(samples, by_generator, strict=True)
    ]
    return float(max(gaps))


class Fleet:
    """Generators of several kinds, and a trainer group that sends them weights."""

    def __init__(self, *kinds: tuple[RunConfig, Prepared]) -> None:
        self.config, self.prepared = kinds[0]
        self.generators = [start_generator(*kind) for kind in kinds]
        self.trainers = start_trainers(self.config, self.prepared)
        self.samples = samples_of(self.prepared, 16)

    async def start(self) -> None:
        await asyncio.gather(self.trainers.setup(), *(g.ready.remote() for g in self.generators))
        await self.trainers.connect(self.generators)

    async def gaps(self) -> list[float]:
        return [await largest_gap(self.trainers, generator, self.samples) for generator in self.generators]

    async def train(self, step: int, samples: int | None = None) -> None:
        await self.trainers.train(TrainBatch(step=step, samples=tuple(self.samples[:samples])))

    def publish(self, version: Version) -> SyncReceipt:
        receipts: list[SyncReceipt] = ray.get([rank.publish.remote(version) for rank in self.trainers.ranks], timeout=120)
        return receipts[0]

    def versions(self) -> list[str]:
        return ray.get([g.weight_version.remote() for g in self.generators])

    def end(self) -> None:
        kill([*self.generators, *self.trainers.ranks])


@pytest.fixture(scope="module", params=ENGINES, ids=str)
def fleet(request: Any, ray_cluster: None) -> Any:
    student, *kinds = ENGINES[request.param]
    common = [student, "objective={type: sampled}", "trainer.lr=0.003", f"temperature={TEMPERATURE}"]
    made = Fleet(*(demo(*common, *kind) for kind in kinds))
    run(made.start())
    yield made
    made.end()


def test_log_probabilities_are_equal_after_a_sync_and_were_not_before(fleet: Fleet) -> None:
    fresh = run(fleet.gaps())
    run(fleet.train(1))
    moved = run(fleet.gaps())
    receipt = fleet.publish(Version(0, 1))
    assert max(fresh) < 1e-4, "an engine does not load the checkpoint that the trainer loads"
    assert min(moved) > 0.05, "one step did not move the student: the comparison would prove nothing"
    assert max(run(fleet.gaps())) < 1e-4
    assert fleet.versions() == ["0.1", "0.1"]
    assert receipt.lost == {}


def test_a_second_sync_arrives_too_and_samples_carry_its_version(fleet: Fleet) -> None:
    run(fleet.train(2))
    fleet.publish(Version(0, 2))
    assert max(run(fleet.gaps())) < 1e-4
    for generator in fleet.generators:
        assert {w.version for w in run(_write(generator, fleet.samples[:4], 1.0))} == {Version(0, 2)}


def test_a_newcomer_that_loads_the_last_copy_is_the_equal_of_a_generator_that_was_sent_it(fleet: Fleet) -> None:
    first, newcomer = fleet.generators
    run(fleet.trainers.connect([first]))
    run(fleet.train(3))
    copy = fleet.publish(Version(0, 3)).copy
    synced, behind = run(fleet.gaps())
    assert synced < 1e-4
    assert behind > 0.05
    assert fleet.versions() == ["0.3", "0.2"]
    ray.get(newcomer.load_copy.remote(copy), timeout=60)
    assert max(run(fleet.gaps())) < 1e-4
    assert fleet.versions() == ["0.3", "0.3"]


def test_sampling_at_another_temperature_reports_log_probabilities_at_the_distillation_temperature(fleet: Fleet) -> None:
    """First tokens at T 2.6: frequencies follow softmax(logits / 2.6), log-probabilities softmax(logits / 1.3)."""
    sampled_at, draws = 2.6, 3000
    unclear = replace(fleet.samples[0], prompt_ids=fleet.samples[0].prompt_ids[:1])  # half a number: several ways on
    for generator in fleet.generators:
        written = run(_write(generator, [unclear] * draws, sampled_at, max_tokens=1))
        tokens = np.array([w.token_ids[0] for w in written])
        reported = {int(t): float(w.logprobs[0]) for t, w in zip(tokens, written, strict=True)}
        # softmax(logits / T) is softmax(log p_tau * tau / T): what was seen often enough is checked against that.
        frequent = [t for t in reported if (tokens == t).sum() >= 50]
        assert len(frequent) >= 2
        seen = np.array([(tokens == t).mean() for t in frequent])
        expected = np.exp([reported[t] * TEMPERATURE / sampled_at for t in frequent])
        ratio_seen, ratio_expected = seen / seen[0], expected / expected[0]
        error = np.abs(np.log(ratio_seen / ratio_expected))
        assert (error < 5 * np.sqrt(1 / (seen * draws) + 1 / (seen[0] * draws))).all(), (ratio_seen, ratio_expected)


def test_an_update_that_misses_a_layer_is_an_error_and_the_next_whole_one_heals_it(fleet: Fleet) -> None:
    state = ray.get(fleet.trainers.ranks[0].state.remote())
    lost = "model.layers.1.mlp.down_proj.weight"
    assert state.pop(lost) is not None
    chunks = pack_chunks(((name, torch.from_numpy(values.copy())) for name, values in state.items()), 2**20)
    updates = [put(chunk) for chunk in chunks]
    for generator in fleet.generators:
        ray.get(generator.start_weight_update.remote())
        for update in updates:
            ray.get(generator.update_weights.remote(update))
        with pytest.raises(Exception, match=r"the weight update did not reach 1 layers: model.layers.1.mlp.down_proj"):
            ray.get(generator.finish_weight_update.remote(Version(0, 9)))
    run(fleet.trainers.connect(fleet.generators))
    run(fleet.train(4))
    fleet.publish(Version(0, 4))
    assert max(run(fleet.gaps())) < 1e-4


def test_half_an_update_whose_sender_is_gone_leaves_nothing_in_the_next_one(fleet: Fleet) -> None:
    """The weights that came do not count as part of the next update's."""
    state = list(ray.get(fleet.trainers.ranks[0].state.remote()).items())
    # Up to the middle of a layer whose parameters vLLM stacks, with values that would be seen.
    (chunk,) = pack_chunks(((name, torch.full(values.shape, 3.0)) for name, values in state[: len(state) // 2]), 2**40)
    for generator in fleet.generators:
        ray.get(generator.start_weight_update.remote())
        ray.get(generator.update_weights.remote(put(chunk)))
    run(fleet.train(5))
    fleet.publish(Version(0, 5))
    assert max(run(fleet.gaps())) < 1e-4


def test_a_copy_whose_trainers_are_gone_is_an_error_and_not_waited_for(fleet: Fleet) -> None:
    """The last test of each fleet."""
    copy = fleet.publish(Version(0, 6)).copy
    kill(fleet.trainers.ranks)
    for generator in fleet.generators:
        assert_soon_lost(lambda generator=generator: ray.get(generator.load_copy.remote(copy), timeout=30))  # type: ignore[misc]


def assert_soon_lost(load: Callable[[], Any]) -> None:
    """The node keeps what a dead process owned for another moment, and then says so."""
    end = time.monotonic() + 30
    while True:
        try:
            load()
        except ray.exceptions.ObjectLostError:
            return
        assert time.monotonic() < end
        time.sleep(0.3)


def test_experts_compute_with_the_weights_that_were_sent(ray_cluster: None, tmp_path: Path) -> None:
    """On a CPU, vLLM packs experts when it first loads them, and an update would leave them unpacked."""
    student = save("qwen3-moe", tmp_path / "student")
    common = [f"student={student}", "objective={type: sampled}", "trainer.lr=0.003", f"temperature={TEMPERATURE}"]
    made = Fleet(demo(*common, "trainer.dtype=float32"))
    try:
        run(made.start())
        fresh = run(made.gaps())
        for step in (1, 2):
            run(made.train(step))
            moved = run(made.gaps())
            made.publish(Version(0, step))
            assert min(moved) > 0.05, "one step did not move the student: the comparison would prove nothing"
            assert max(run(made.gaps())) < 1e-4
        assert max(fresh) < 1e-4
    finally:
        made.end()


async def _write(generator: Any, samples: list[TrainSample], temperature: float, max_tokens: int = 48) -> list[Any]:
    requests = [
        WriteRequest(
            sample_id=i, prompt_ids=s.prompt_ids, seed=i, max_tokens=max_tokens, temperature=temperature, top_p=1.0, top_k=0
        )
        for i, s in enumerate(samples)
    ]
    return await write(generator, requests)
