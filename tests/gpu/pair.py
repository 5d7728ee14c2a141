"""A trainer rank and a generator, the pipeline's own actors, on a Ray of their own; on a GPU both have the same one.

with pair(settings, folder, "host") as both:
    both.train()
    both.publish()
    both.gap()
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.gpu import models
from tests.gpu.runner import ROOT
from tests.gpu.settings import Settings

SECONDS = 400.0  # for any answer of an actor; an engine's start is the longest
TRANSFER_SECONDS = 120.0


@dataclass
class Pair:
    settings: Settings
    config: Any
    rank: Any  # a TrainerRank
    generator: Any  # a Generator
    samples: list[Any]
    number: int = 0  # of the newest published version
    step: int = 0

    def ask(self, actor: Any, verb: str, *arguments: Any, **keywords: Any) -> Any:
        """Raises what the actor raises, and ray.exceptions.GetTimeoutError."""
        import ray

        return ray.get(getattr(actor, verb).remote(*arguments, **keywords), timeout=SECONDS)

    def train(self) -> None:
        """One step."""
        self.step += 1
        s = self.settings
        self.ask(
            self.rank,
            "forward_backward",
            [self.samples],
            step=self.step,
            objective=self.config.objective,
            batch_size=len(self.samples),
            batch_tokens=sum(len(s.response_ids) for s in self.samples),
            temperature=s.temperature,
            vocab_size=s.vocabulary,
        )
        self.ask(self.rank, "optimizer_step", self.step, None)

    def publish(self) -> Any:
        """Bring the generator to the rank's weights. Returns the receipt."""
        from renio_pipeline.types import Version

        self.number += 1
        receipt = self.ask(self.rank, "publish", Version(0, self.number))
        assert not receipt.lost, f"the generator did not get version {self.number}: {receipt.lost}"
        assert self.ask(self.generator, "weight_version") == f"0.{self.number}", "the generator has another version"
        return receipt

    def generator_logprobs(self) -> np.ndarray:
        """Of all response tokens, by the generator's engine."""
        found = self.ask(self.generator, "score", [[*s.prompt_ids.tolist(), *s.response_ids.tolist()] for s in self.samples])
        return np.concatenate([part[len(s.prompt_ids) - 1 :] for part, s in zip(found, self.samples, strict=True)])

    def rank_logprobs(self) -> np.ndarray:
        """The same by the trainer."""
        found = self.ask(self.rank, "logprobs", [self.samples], self.settings.temperature, self.settings.vocabulary)
        return np.concatenate([found[s.sample_id] for s in self.samples])

    def gap(self) -> float:
        """Mean difference of both, nats."""
        return float(np.abs(self.generator_logprobs() - self.rank_logprobs()).mean())


@contextmanager
def pair(settings: Settings, folder: str, backend: str, *overrides: str) -> Iterator[Pair]:
    """Both loaded and connected; `overrides` are of the run's configuration."""
    models.environment(settings)
    from actors.cluster import connection
    from renio_pipeline.config import load

    config = load(ROOT / "configs/demo.yaml", [*_keys(settings, folder, backend), *overrides])
    with connection.connect(None):
        rank, generator = _start(settings, config, folder)
        both = Pair(settings, config, rank, generator, _samples(settings))
        workers = both.ask(generator, "ready")  # loads first: an engine measures the memory that is free
        both.ask(rank, "setup", *both.ask(rank, "address"))
        both.ask(rank, "connect", [generator], [workers], settings.dtype, backend, *both.ask(rank, "address"))
        yield both


def _keys(settings: Settings, folder: str, backend: str) -> list[str]:
    gpus = 1 if settings.on_gpu else 0
    keys = [
        f"student={folder}", f"teacher.model={folder}", f"temperature={settings.temperature}", "objective={type: sampled}",
        f"trainer.dtype={settings.dtype}", f"generator.dtype={settings.dtype}", f"trainer.lr={settings.lr}",
        "trainer.schedule=constant", "trainer.zero_stage=2", "placement=colocated", f"sync.backend={backend}",
        f"pools.generator.gpus={gpus}", f"pools.trainer.gpus={gpus}", f"faults.transfer_seconds={TRANSFER_SECONDS}",
    ]  # fmt: skip
    if settings.on_gpu:
        keys.append(f"generator.engine.gpu_memory_utilization={settings.gpu_memory_utilization}")
    return keys


def _start(settings: Settings, config: Any, folder: str) -> tuple[Any, Any]:
    import ray

    from actors.cluster.placement import actor_options, half_gpu
    from actors.engines.generator import Generator
    from actors.engines.specs import generator_spec
    from actors.pools.worker import CONTROL
    from actors.trainer.messages import RankSpec
    from actors.trainer.rank import TrainerRank

    rank_spec = RankSpec(
        model=folder,
        trainer=config.trainer,
        steps=10,
        seed=0,
        on_gpu=settings.on_gpu,
        adapter_sync=config.sync.lora == "adapter",
        transfer_seconds=TRANSFER_SECONDS,
    )
    engine_spec = generator_spec(config, Sizes(settings.vocabulary, settings.context))
    generator = (
        ray.remote(Generator).options(**half_gpu(actor_options(config, "generator", uses_vllm=True))).remote(engine_spec)
    )
    rank_actor = ray.remote(concurrency_groups={CONTROL: 1})(TrainerRank)
    rank = rank_actor.options(**half_gpu(actor_options(config, "trainer"))).remote(rank_spec, 0, 1)
    return rank, generator


@dataclass(frozen=True)
class Sizes:
    vocab_size: int
    context: int


def _samples(settings: Settings) -> list[Any]:
    from renio_pipeline.types import TrainSample

    rng, found = np.random.default_rng(1), []
    for i in range(settings.samples):
        ids = models.ids(settings, settings.prompt_tokens + settings.response_tokens, 300 + i)
        prompt, response = ids[: settings.prompt_tokens], ids[settings.prompt_tokens :]
        student = rng.normal(-6, 1, len(response)).astype(np.float32)
        teacher = student + rng.normal(0, 1, len(response)).astype(np.float32)
        found.append(
            TrainSample(
                sample_id=i,
                prompt_ids=prompt,
                response_ids=response,
                student_logprobs=student,
                teacher_logprobs=teacher,
                weight=1.0,
            )
        )
    return found


def timed(work: Any) -> tuple[Any, float]:
    """What it returns, and its seconds."""
    started = time.perf_counter()
    return work(), time.perf_counter() - started
