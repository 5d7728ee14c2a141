"""A trainer in this process: torch's AdamW with the pipeline's loss, clipping and schedule."""

from __future__ import annotations

import math
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from renio_pipeline.config import RunConfig
from renio_pipeline.in_process.generators import InProcessGenerators
from renio_pipeline.models import packed_attention
from renio_pipeline.models.batching import plan
from renio_pipeline.models.self_checks import check_head, check_packing
from renio_pipeline.models.student import (
    MicroLoss,
    TokenLogits,
    micro_batch_loss,
    non_finite_samples,
    sampled_logprobs,
    token_losses,
)
from renio_pipeline.objectives import trained_objective
from renio_pipeline.objectives.agreement import Agreement
from renio_pipeline.objectives.base import TeacherHead
from renio_pipeline.objectives.fetched import by_sample
from renio_pipeline.probe.responses import Forward, train_sample
from renio_pipeline.run_dir.checkpoint_files import ResumePoint
from renio_pipeline.stages.outcomes import over_passes
from renio_pipeline.types import NonFiniteError, Publication, ScoredRollout, TrainBatch, TrainReport, TrainSample, Version

T = TypeVar("T")


class InProcessTrainers:
    size, restarts = 1, 0

    def __init__(
        self,
        lm: Any,
        config: RunConfig,
        vocab_size: int,
        teacher_head: TeacherHead | None,
        generators: InProcessGenerators,
        shared_tokens: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """
        Args:
            lm: the student, a transformers model in float32.
            vocab_size: V, the rows that student and teacher share.
            teacher_head: the output head of a teacher, by name and version; None: there is no teacher.
            shared_tokens: see ``Prepared``.
            generators: they generate with ``lm`` itself, and are told its version.
        """
        from transformers import get_scheduler

        self.model = TokenLogits(lm.train())
        check_head(self.model, torch.device("cpu"))
        if config.trainer.packing:
            packed_attention.use(lm)
            check_packing(self.model, torch.device("cpu"))
        self._shared_tokens = shared_tokens
        self._config, self._vocab_size, self._teacher_head, self._generators = config, vocab_size, teacher_head, generators
        t = config.trainer
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=t.lr, betas=t.betas, weight_decay=t.weight_decay)
        self._schedule = get_scheduler(
            t.schedule, self._optimizer, t.warmup_steps * config.passes, config.steps * config.passes
        )

    async def logprobs(self, batch: TrainBatch) -> dict[int, np.ndarray]:
        """log p_S of each response's tokens under the current weights: [T] float32, nats, by sample id."""
        found: dict[int, np.ndarray] = {}
        for samples in self._plan(batch):
            found |= sampled_logprobs(
                self.model,
                samples,
                temperature=self._config.temperature,
                vocab_size=self._vocab_size,
                packing=self._config.trainer.packing,
            )
        return found

    async def forward(self, scored: Sequence[ScoredRollout]) -> dict[int, Forward]:
        """log p_S and the objective's divergences of scored responses under the current weights, by sample id."""
        found: dict[int, Forward] = {}
        batch = TrainBatch(step=0, samples=tuple(train_sample(s) for s in scored))
        for samples in self._plan(batch):
            losses = token_losses(self.model, samples, _payload(samples), **self._loss_settings())
            found |= {i: Forward(logprobs=logprobs, losses=each) for i, (logprobs, each) in losses.items()}
        return found

    async def train(self, batch: TrainBatch) -> TrainReport:
        return over_passes([self._pass(batch) for _ in range(self._config.passes)])

    def _pass(self, batch: TrainBatch) -> TrainReport:
        """One optimizer step."""
        started = time.perf_counter()
        micro_batches = self._plan(batch)
        losses = [self._backward(samples, batch) for samples in micro_batches]
        lr = float(self._schedule.get_last_lr()[0])
        norm = self._update(batch.step)
        gaps = np.concatenate(
            [_gaps(samples, micro) for samples, micro in zip(micro_batches, losses, strict=True)] or [np.zeros(0)]
        )
        divergences = [d for samples, micro in zip(micro_batches, losses, strict=True) for d in _means(samples, micro)]
        magnitudes = [micro.magnitudes(samples) for samples, micro in zip(micro_batches, losses, strict=True)]
        magnitude, after_pivotal = (sum(part) for part in zip(*magnitudes, strict=True))
        tokens = sum(s.tokens for s in batch.samples)
        padded = sum(micro.computed_tokens for micro in losses)
        return TrainReport(
            loss=sum(float(micro.loss) for micro in losses),
            divergence=sum(divergences) / len(batch.samples),
            loss_after_pivotal=after_pivotal / magnitude if magnitude else None,
            tokens=tokens,
            padding=1 - tokens / padded,
            mismatch_mean=float(gaps.mean()) if len(gaps) else 0.0,
            mismatch_max=float(gaps.max(initial=0.0)),
            agreement=sum((micro.agreement for micro in losses), Agreement()).metrics,
            grad_norm=norm,
            lr=lr,
            busy_seconds=[time.perf_counter() - started],
            measured=self._measured(micro_batches, losses),
        )

    def _measured(self, micro_batches: Sequence[Sequence[TrainSample]], losses: Sequence[MicroLoss]) -> dict[str, float]:
        """What the objective measures, means over response tokens."""
        objective, found = trained_objective(self._config), dict[str, float]()
        for samples, micro in zip(micro_batches, losses, strict=True):
            with objective.guarded("measured"):
                for name, value in objective.measured(samples, micro.student_logprobs).items():
                    found[name] = found.get(name, 0.0) + value
        tokens = sum(len(s.response_ids) for samples in micro_batches for s in samples)
        return {name: value / max(1, tokens) for name, value in found.items()}

    async def publish(self, version: Version) -> Publication:
        """Only tell the generators the new version: they share the weights."""
        self._generators.follow(version)
        return Publication.to_nobody(version)

    async def save(self, folder: str) -> None:
        self.model.lm.save_pretrained(Path(folder) / "hf")

    async def written(self) -> None:
        """Return at once: ``save`` has already written everything."""

    async def while_healthy(self, waiting: Coroutine[Any, Any, T]) -> T:
        return await waiting

    async def begin(self, point: ResumePoint) -> None:
        raise RuntimeError("a trainer in this process cannot be lost and restarted")

    def _plan(self, batch: TrainBatch) -> list[list[TrainSample]]:
        trainer = self._config.trainer
        return plan(batch.samples, 1, trainer.micro_batch_tokens, packing=trainer.packing)[0]

    def _backward(self, samples: Sequence[TrainSample], batch: TrainBatch) -> MicroLoss:
        size, tokens = len(batch.samples), batch.response_tokens
        settings = self._loss_settings() | {"batch_size": size, "batch_tokens": tokens, "diagnostics": self._config.diagnostics}
        micro = micro_batch_loss(self.model, samples, _payload(samples), **settings)
        bad = non_finite_samples(samples, micro.per_token)
        if bad or not torch.isfinite(micro.loss):
            raise NonFiniteError(f"step {batch.step}: the loss is not finite; samples {bad or [s.sample_id for s in samples]}")
        micro.loss.backward()
        return replace(micro, loss=micro.loss.detach())

    def _loss_settings(self) -> dict[str, Any]:
        return {
            "objective": trained_objective(self._config),
            "temperature": self._config.temperature,
            "vocab_size": self._vocab_size,
            "teacher_head": self._teacher_head,
            "shared_tokens": self._shared_tokens,
            "packing": self._config.trainer.packing,
        }

    def _update(self, step: int) -> float:
        """Clip, step, advance the schedule and clear the gradients. Returns the gradient norm before clipping."""
        bound = self._config.trainer.max_grad_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), bound))
        if not math.isfinite(norm):
            raise NonFiniteError(f"step {step}: gradient norm is {norm}")
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        return norm


def _payload(samples: Sequence[TrainSample]) -> dict[int, Any]:
    return by_sample(samples, lambda table: table)


def _means(samples: Sequence[TrainSample], micro: MicroLoss) -> list[float]:
    """The mean divergence of each sample's tokens, in nats."""
    return [float(part.mean()) if len(part) else 0.0 for part in micro.per_token.split([len(s.response_ids) for s in samples])]


def _gaps(samples: Sequence[TrainSample], micro: MicroLoss) -> np.ndarray:
    """|generator - trainer| log-probability of the tokens that the generator sampled, in nats."""
    own = np.concatenate([np.full(len(s.response_ids), not s.off_policy) for s in samples])
    return np.abs(micro.student_logprobs.numpy() - np.concatenate([s.student_logprobs for s in samples]))[own]
