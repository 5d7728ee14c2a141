"""The exact full-vocabulary loss through the teacher and the ranks, against a naive computation on full logits."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors import launch
from actors.deepspeed_engine import RankSpec, build
from actors.placement import actor_options
from actors.trainer_group import TrainerGroup
from actors.training import TrainerRank
from renio_pipeline import models
from renio_pipeline.divergence import generalized_jsd
from renio_pipeline.heads import load_head
from renio_pipeline.schema import Jsd
from renio_pipeline.scorer import Scorer
from renio_pipeline.types import ScoreRequest, ScorerSpec, TrainBatch, TrainSample, Version
from tests.ray.conftest import demo, kill, run, samples_of

TEMPERATURE = 1.2
EXTRA_ROWS = 12


class ExactRank(TrainerRank):
    """A rank that can be built anew, and shows its whole gradients."""

    def rebuild(self, spec: RankSpec) -> None:
        self._spec = spec
        self._engine = build(spec, self._world_size)
        self._teacher_heads = {Version(0, 0): load_head(spec.teacher or "", torch.float32)}

    def gradients(self) -> dict[str, np.ndarray]:
        from deepspeed.utils import safe_get_full_grad

        whole = {
            n: safe_get_full_grad(p) if hasattr(p, "_hp_mapping") or hasattr(p, "ds_id") else p.grad for n, p in self._named()
        }
        return {n: g.float().numpy() for n, g in whole.items()}

    def _named(self) -> list[tuple[str, Any]]:
        return list(self._lm.named_parameters())


def variant(base: str, folder: Path, *, padded: int) -> str:
    """A model with more output rows than tokens."""
    model = AutoModelForCausalLM.from_pretrained(models.resolve(base), dtype=torch.float32)
    torch.manual_seed(1)
    model.resize_token_embeddings(model.config.vocab_size + padded, mean_resizing=False)
    with torch.no_grad():
        model.get_output_embeddings().weight[-padded:] = torch.randn(padded, model.config.hidden_size)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(models.resolve(base)).save_pretrained(folder)
    return str(folder)


class Bench:
    """Two ranks, and one of its own, for every engine configuration."""

    def __init__(self) -> None:
        self.config, self.prepared = demo(
            "objective={type: jsd}", "teacher.type=torch", f"temperature={TEMPERATURE}", "pools.teacher.replicas=2",
            "trainer.micro_batch_tokens=300",
        )  # fmt: skip
        self.groups = {size: self._group(size) for size in (1, 2)}
        self.samples = samples_of(self.prepared, 9)
        self.samples[3] = replace(
            self.samples[3], response_ids=self.samples[3].response_ids[:0], student_logprobs=np.empty(0, np.float32)
        )
        self.samples[5] = replace(
            self.samples[5], response_ids=self.samples[5].response_ids[:1], student_logprobs=np.zeros(1, np.float32)
        )

    def _group(self, size: int) -> TrainerGroup:
        actor = ray.remote(ExactRank).options(**actor_options(self.config, "trainer"))
        spec = RankSpec(model=models.resolve("embedded:student"), trainer=self.config.trainer, steps=10, seed=0)
        ranks = [actor.remote(spec, i, size) for i in range(size)]
        group = TrainerGroup(ranks, self.config, self.prepared.vocab_size, None)
        run(group.setup())
        return group

    def loss_and_gradients(
        self, payload: Any, objective: Jsd, *, ranks: int, zero_stage: int, student: str, teacher: str
    ) -> tuple[float, dict[str, np.ndarray]]:
        group, section = self.groups[ranks], self.config.trainer.model_copy(update={"zero_stage": zero_stage})
        spec = RankSpec(model=models.resolve(student), trainer=section, steps=10, seed=0, teacher=models.resolve(teacher))
        batch = TrainBatch(step=1, samples=tuple(replace(s, payload=payload) for s in self.samples))

        async def go() -> tuple[float, dict[str, np.ndarray]]:
            await asyncio.gather(*(r.rebuild.remote(spec) for r in group.ranks))
            reports = await group._each(
                "forward_backward", group._plan(batch), step=1, objective=objective, batch_size=len(self.samples),
                temperature=TEMPERATURE, vocab_size=self.prepared.vocab_size,
            )  # fmt: skip
            gradients = await asyncio.gather(*(r.gradients.remote() for r in group.ranks))
            return sum(r.loss for r in reports), gradients[0]

        return run(go())


def naive(
    samples: list[TrainSample], objective: Jsd, student: str, teacher: str, rows: int
) -> tuple[float, dict[str, np.ndarray]]:
    """One process, sample by sample, full logits, autograd."""
    own = AutoModelForCausalLM.from_pretrained(models.resolve(student), dtype=torch.float32)
    other = AutoModelForCausalLM.from_pretrained(models.resolve(teacher), dtype=torch.float32)
    total = torch.zeros(())
    for s in samples:
        ids = torch.tensor([[*s.prompt_ids.tolist(), *s.response_ids.tolist()]])
        kept = slice(len(s.prompt_ids) - 1, ids.shape[1] - 1)
        with torch.no_grad():
            taught = other(ids).logits[0, kept, :rows]
        per_token = generalized_jsd(
            own(ids).logits[0, kept, :rows],
            taught,
            beta=objective.beta,
            temperature=TEMPERATURE,
            entry_clip=objective.entry_clip,
        )
        total = total + s.weight * per_token.sum() / max(1, len(s.response_ids)) / len(samples)
    total.backward()
    return total.item(), {n: p.grad.numpy() for n, p in own.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def bench(ray_cluster: None) -> Bench:
    return Bench()


def scored_in_process(bench: Bench, teacher: str) -> Any:
    spec = ScorerSpec(
        model=models.resolve(teacher),
        dtype="float32",
        temperature=TEMPERATURE,
        vocab_size=bench.prepared.vocab_size,
        kind="hidden",
    )
    return ray.put(Scorer(spec).score(requests(bench.samples))[1])


def requests(samples: list[TrainSample]) -> list[ScoreRequest]:
    return [ScoreRequest(sample_id=s.sample_id, prompt_ids=s.prompt_ids, response_ids=s.response_ids) for s in samples]


def assert_equal(found: tuple[float, dict[str, np.ndarray]], expected: tuple[float, dict[str, np.ndarray]]) -> None:
    assert found[0] == pytest.approx(expected[0], abs=1e-5)
    assert found[1].keys() == expected[1].keys()
    scale = max(float(np.abs(g).max()) for g in expected[1].values())
    for name, gradient in expected[1].items():
        np.testing.assert_allclose(found[1][name], gradient, rtol=1e-3, atol=min(1e-5, 1e-3 * scale), err_msg=name)


@pytest.mark.parametrize("entry_clip", [None, 0.05])
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
def test_through_the_pool_loss_and_gradient_are_those_of_full_logits(
    bench: Bench, beta: float, entry_clip: float | None
) -> None:
    objective = Jsd(beta=beta, entry_clip=entry_clip)
    if not hasattr(bench, "payload"):
        pool = launch.start_teachers(bench.config, bench.prepared)
        bench.logprobs, payload = run(_score(pool.replicas[0], requests(bench.samples)))
        bench.payload = ray.put(payload)
        kill(pool.replicas)
    found = bench.loss_and_gradients(
        bench.payload, objective, ranks=2, zero_stage=2, student="embedded:student", teacher="embedded:teacher"
    )
    assert_equal(found, naive(bench.samples, objective, "embedded:student", "embedded:teacher", bench.prepared.vocab_size))


async def _score(replica: Any, asked: list[ScoreRequest]) -> Any:
    logprobs, payload = replica.score.options(num_returns=2).remote(asked)
    return await logprobs, await payload


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("student", ["embedded:student", "embedded:teacher"], ids=["tied", "untied"])
def test_every_zero_stage_with_tied_and_untied_heads(bench: Bench, student: str, zero_stage: int, ranks: int) -> None:
    teacher = "embedded:student" if student == "embedded:teacher" else "embedded:teacher"
    objective = Jsd(beta=0.3, chunk_tokens=7)
    payload = scored_in_process(bench, teacher)
    found = bench.loss_and_gradients(payload, objective, ranks=ranks, zero_stage=zero_stage, student=student, teacher=teacher)
    assert_equal(found, naive(bench.samples, objective, student, teacher, bench.prepared.vocab_size))


def test_a_teacher_with_more_output_rows_than_tokens(bench: Bench, tmp_path: Path) -> None:
    teacher = variant("embedded:teacher", tmp_path / "padded", padded=EXTRA_ROWS)
    objective = Jsd(beta=0.0)
    found = bench.loss_and_gradients(
        scored_in_process(bench, teacher), objective, ranks=1, zero_stage=1, student="embedded:student", teacher=teacher
    )
    assert_equal(found, naive(bench.samples, objective, "embedded:student", teacher, bench.prepared.vocab_size))


def test_gradient_checkpointing_changes_nothing(bench: Bench) -> None:
    payload, objective = scored_in_process(bench, "embedded:teacher"), Jsd(beta=0.5)
    bench.config = bench.config.model_copy(
        update={"trainer": bench.config.trainer.model_copy(update={"gradient_checkpointing": True})}
    )
    found = bench.loss_and_gradients(
        payload, objective, ranks=1, zero_stage=3, student="embedded:student", teacher="embedded:teacher"
    )
    assert_equal(found, naive(bench.samples, objective, "embedded:student", "embedded:teacher", bench.prepared.vocab_size))
