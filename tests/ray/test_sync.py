"""After a weight sync, generators and trainer give the same log-probabilities: on every kind of engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import ray
import torch

from actors import launch
from actors.generation import WriteRequest
from actors.pool import GeneratorPool
from actors.trainer_group import TrainerGroup
from actors.wire import pack_chunks, put
from renio_pipeline.config import RunConfig
from renio_pipeline.preflight import Prepared
from renio_pipeline.types import TrainBatch, TrainSample, Version
from tests.ray.conftest import demo, kill, run, samples_of

ENGINES = {
    "tied": ["student=embedded:student"],
    "untied": ["student=embedded:teacher"],
    "separate process": ["generator.separate_process=true"],
    "tensor parallel": ["generator.tensor_parallel=2", "student=embedded:teacher"],
}
TEMPERATURE = 1.3


class Pair:
    """A generator pool and a trainer group that sends it weights."""

    def __init__(self, config: RunConfig, prepared: Prepared) -> None:
        self.config, self.prepared = config, prepared
        self.generators: GeneratorPool = launch.start_generators(config, prepared)
        self.trainers: TrainerGroup = launch.start_trainers(config, prepared)
        self.samples = samples_of(prepared, 16)

    async def start(self) -> None:
        await asyncio.gather(self.trainers.setup(), *(g.ready.remote() for g in self.generators.replicas))
        await self.trainers.connect(self.generators.replicas)

    async def gap(self) -> float:
        """Largest difference of log-probabilities between the generator and the trainer, over the response tokens."""
        by_trainer = await self.trainers.logprobs(TrainBatch(step=1, samples=tuple(self.samples)))
        prompts = [[*s.prompt_ids.tolist(), *s.response_ids.tolist()] for s in self.samples]
        by_generator = await self.generators.replicas[0].score.remote(prompts)
        gaps = [
            np.abs(scores[-len(s.response_ids) :] - by_trainer[s.sample_id]).max()
            for s, scores in zip(self.samples, by_generator, strict=True)
        ]
        return float(max(gaps))


@pytest.fixture(scope="module", params=ENGINES, ids=str)
def pair(request: Any, ray_cluster: None) -> Any:
    overrides = [*ENGINES[request.param], "objective={type: sampled}", "trainer.lr=0.003", f"temperature={TEMPERATURE}"]
    made = Pair(*demo(*overrides))
    run(made.start())
    yield made
    kill([*made.generators.replicas, *made.trainers.ranks])


def test_log_probabilities_are_equal_after_a_sync_and_were_not_before(pair: Pair) -> None:
    async def go() -> tuple[float, float, float]:
        fresh = await pair.gap()
        await pair.trainers.train(TrainBatch(step=1, samples=tuple(pair.samples)))
        moved = await pair.gap()
        await pair.trainers.publish(Version(0, 1))
        return fresh, moved, await pair.gap()

    fresh, moved, synced = run(go())
    assert fresh < 1e-4, "the engine does not load the checkpoint that the trainer loads"
    assert moved > 0.05, "one step did not move the student: the comparison would prove nothing"
    assert synced < 1e-4
    assert run(_version(pair)) == "0.1"


def test_a_second_sync_arrives_too_and_samples_carry_its_version(pair: Pair) -> None:
    async def go() -> tuple[float, list[Any]]:
        await pair.trainers.train(TrainBatch(step=2, samples=tuple(pair.samples)))
        await pair.trainers.publish(Version(0, 2))
        return await pair.gap(), await _write(pair, pair.samples[:4], 1.0)

    gap, written = run(go())
    assert gap < 1e-4
    assert {w.version for w in written} == {Version(0, 2)}


def test_sampling_at_another_temperature_reports_log_probabilities_at_the_distillation_temperature(pair: Pair) -> None:
    """First tokens at T 2.6: frequencies follow softmax(logits / 2.6), log-probabilities softmax(logits / 1.3)."""
    sampled_at, draws = 2.6, 3000

    async def go() -> list[Any]:
        unclear = replace(pair.samples[0], prompt_ids=pair.samples[0].prompt_ids[:1])  # half a number: several ways on
        return await _write(pair, [unclear] * draws, sampled_at, max_tokens=1)

    written = run(go())
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


def test_an_update_that_misses_a_layer_is_an_error(pair: Pair) -> None:
    """The last test of each engine: it is left without a layer's weights."""
    state = ray.get(pair.trainers.ranks[0].state.remote())
    lost = "model.layers.1.mlp.down_proj.weight"
    assert state.pop(lost) is not None
    generator = pair.generators.replicas[0]
    ray.get(generator.start_weight_update.remote())
    for chunk in pack_chunks(((name, torch.from_numpy(values.copy())) for name, values in state.items()), 2**20):
        ray.get(generator.update_weights.remote(put(chunk)))
    with pytest.raises(Exception, match=r"the weight update did not reach 1 layers: model.layers.1.mlp.down_proj"):
        ray.get(generator.finish_weight_update.remote(Version(0, 9)))


async def _version(pair: Pair) -> str:
    return await pair.generators.replicas[0].weight_version.remote()


async def _write(pair: Pair, samples: list[TrainSample], temperature: float, max_tokens: int = 48) -> list[Any]:
    requests = [
        WriteRequest(
            sample_id=i, prompt_ids=s.prompt_ids, seed=i, max_tokens=max_tokens, temperature=temperature, top_p=1.0, top_k=0
        )
        for i, s in enumerate(samples)
    ]
    stream = pair.generators.replicas[0].generate.options(num_returns="streaming").remote(requests)
    return [await ref async for ref in stream]
