"""Self-distillation: after every step the teacher's version and weights are what its mode says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import torch

from actors import launch
from actors.pools.jobs import Service
from actors.pools.worker import CONTROL
from actors.trainer.messages import RankSpec
from actors.trainer.rank import TrainerRank
from actors.trainer.supervisor import Trainers
from renio_pipeline.models import info
from renio_pipeline.models.teacher import Scorer
from renio_pipeline.run_dir.checkpoint_files import ResumePoint
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.types import ScoreRequest, ScorerSpec, TrainBatch, Version
from tests.ray.conftest import demo, kill, run, samples_of

DECAY = 0.5
STEPS = 3
MODES = {
    "fixed": ["method={type: opsd, teacher: fixed}", "teacher.type=torch", "objective={type: jsd}"],
    "latest": ["method={type: opsd, teacher: latest}", "teacher.type=torch", "objective={type: jsd}"],
    "every second": ["method={type: opsd, teacher: latest, refresh_every: 2}", "teacher.type=torch", "objective={type: jsd}"],
    "ema": [f"method={{type: opsd, teacher: ema, decay: {DECAY}}}", "teacher.type=torch", "objective={type: jsd}"],
    "ema of LoRA": [
        f"method={{type: opsd, teacher: ema, decay: {DECAY}}}",
        "teacher.type=torch",
        "objective={type: jsd}",
        "trainer.lora={r: 4, alpha: 8}",
        "sync.lora=adapter",
    ],
    "latest, with payloads two versions old": [
        "method={type: opsd, teacher: latest}",
        "teacher.type=torch",
        "objective={type: jsd}",
        "max_staleness=2",
    ],
    "latest on vllm": ["method={type: opsd, teacher: latest}", "objective={type: top_k_forward_kl, k: 8}"],
}
VERSIONS = {"fixed": [0, 0, 0, 0], "every second": [0, 0, 2, 2]}
SHARDING = {"latest": (2, 3), "ema": (2, 2), "every second": (2, 0), "ema of LoRA": (2, 3)}  # ranks, ZeRO stage


class ReusedRank(TrainerRank):
    """A rank that becomes another one: starting a process costs more than the modes."""

    def become(self, spec: RankSpec) -> None:
        TrainerRank.__init__(self, spec, self._rank, self._world_size)

    def heads(self) -> dict[Version, np.ndarray]:
        """The output heads of the teacher that this rank has at hand, by version."""
        return {version: head.weight.cpu().numpy() for (_, version), head in self._teacher_heads.items()}


@pytest.fixture
def reused_ranks(ray_cluster: None, monkeypatch: pytest.MonkeyPatch, made: dict[tuple[int, int], Any]) -> None:
    """``launch.start_trainers`` takes the ranks of an earlier mode with as many."""

    def in_bundle(actor: Any, group: Any, index: int, options: dict[str, Any]) -> Any:
        def remote(spec: RankSpec, rank: int, size: int) -> Any:
            if (size, rank) in made:
                ray.get(made[size, rank].become.remote(spec))
            else:
                cls = ray.remote(concurrency_groups={CONTROL: 1})(ReusedRank)
                made[size, rank] = cls.options(**options).remote(spec, rank, size)
            return made[size, rank]

        return SimpleNamespace(remote=remote)

    monkeypatch.setattr(launch, "create_placement_group", lambda bundles: None)
    monkeypatch.setattr(launch, "in_bundle", in_bundle)


@pytest.fixture(scope="module")
def made() -> Iterator[dict[tuple[int, int], Any]]:
    """The ranks, by how many there are and which one it is."""
    found: dict[tuple[int, int], Any] = {}
    yield found
    kill(list(found.values()))


@pytest.mark.parametrize("mode", MODES)
def test_the_teachers_version_and_weights_are_those_of_its_mode(reused_ranks: None, mode: str) -> None:
    ranks, zero_stage = SHARDING.get(mode, (1, 1))
    sharding = [f"pools.trainer.replicas={ranks}", f"trainer.zero_stage={zero_stage}", "trainer.lr=0.01"]
    config, prepared = demo("teacher.model=null", *MODES[mode], *sharding)
    service = Service(config=config, quarantine=QuarantineLog(None, print))
    teachers = launch.start_teachers(service, prepared, launch.payload_budget(config, prepared))[""]
    ranks_at = partial(launch.start_trainers, config, prepared, None)
    trainers = Trainers(ranks_at, None, teachers if config.follow else None, service)
    samples = samples_of(prepared, 8)
    asked = [ScoreRequest(sample_id=s.sample_id, prompt_ids=s.prompt_ids, response_ids=s.response_ids) for s in samples]

    async def go() -> tuple[list[str], list[Any], list[Any], dict[Version, np.ndarray]]:
        teachers.workers.open()
        await asyncio.gather(trainers.begin(ResumePoint()), teachers.workers.settled())
        assert trainers.group is not None
        teacher = teachers.workers.all[0].actor
        versions, scores, states, payloads = [], [], [], []
        for step in range(STEPS + 1):
            logprobs, payload = teacher.score.options(num_returns=2).remote(asked)
            await logprobs
            payloads.append(payload)
            if step:
                oldest = payloads[-1 - config.max_staleness :][0]  # the step trains on a payload as old as may be
                scored = tuple(replace(s, payload=oldest) for s in samples)
                await trainers.train(TrainBatch(step=step, samples=scored))
            await trainers.publish(Version(0, step))
            states.append((await trainers.group._all("state"))[0])
            versions.append(await teacher.weight_version.remote())
            logprobs, _ = teacher.score.options(num_returns=2).remote(asked)
            scores.append(await logprobs)
        heads = await trainers.group.ranks[0].heads.remote()
        trainers.group = None  # its ranks stay, for the next mode
        await trainers.end()
        teachers.close()
        return versions, scores, states, heads

    versions, scores, states, heads = run(go())
    expected = VERSIONS.get(mode, list(range(STEPS + 1)))
    assert versions == [f"0.{n}" for n in expected]
    assert _gap(states[0], states[-1]) > 1e-3, "training did not move the student: nothing is compared"
    followed = _weights_of(mode, states, expected)
    by_version = {Version(0, number): weights for number, weights in zip(expected, followed, strict=True)}
    assert len(heads) == min(len(by_version), config.max_staleness + 2)
    for version, head in heads.items():
        np.testing.assert_allclose(head, by_version[version]["model.embed_tokens.weight"], atol=1e-6)
    for found, weights in zip(scores, followed, strict=True):
        for ours, theirs in zip(found, _scores_with(weights, asked, prepared.vocab_size), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def _weights_of(mode: str, states: list[dict[str, np.ndarray]], versions: list[int]) -> list[dict[str, np.ndarray]]:
    if not mode.startswith("ema"):
        return [states[n] for n in versions]
    average = [states[0]]
    for state in states[1:]:
        average.append({name: DECAY * average[-1][name] + (1 - DECAY) * state[name] for name in state})
    return average


def _scores_with(weights: dict[str, np.ndarray], asked: list[ScoreRequest], vocab_size: int) -> list[np.ndarray]:
    model = info.resolve("embedded:student")
    scorer = Scorer(ScorerSpec(model=model, dtype="float32", temperature=1.0, vocab_size=vocab_size, kind="sampled"))
    scorer.load([(name, torch.from_numpy(values.copy())) for name, values in weights.items()])
    return scorer.score(asked)[0]


def _gap(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def test_the_teacher_reads_the_solution_and_the_student_does_not() -> None:
    _, prepared = demo("teacher.model=null", "method={type: opsd}")
    row, student, teacher = prepared.rows[0], prepared.prompt_ids[0], prepared.teacher_ids[0]
    assert row.solution is not None
    assert row.solution in prepared.tokenizer.decode(teacher)
    assert row.solution not in prepared.tokenizer.decode(student)
    assert ray.is_initialized()
