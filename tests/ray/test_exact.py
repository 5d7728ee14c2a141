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
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from actors.cluster.placement import actor_options
from actors.pools.kinds import teacher_kind
from actors.trainer.deepspeed_engine import build
from actors.trainer.group import TrainerGroup
from actors.trainer.messages import RankSpec
from actors.trainer.rank import TrainerRank
from renio_pipeline.divergence import generalized_jsd
from renio_pipeline.models import info
from renio_pipeline.models.heads import load_head
from renio_pipeline.models.teacher import Scorer
from renio_pipeline.objectives import Objective
from renio_pipeline.objectives.jsd import Jsd
from renio_pipeline.objectives.top_k_forward_kl import TopKForwardKL
from renio_pipeline.types import Mixture, ScoreRequest, ScorerSpec, TrainBatch, TrainSample, Version
from tests.ray.conftest import bare, demo, run, samples_of

TEMPERATURE = 1.2
EXTRA_ROWS = 12


class ExactRank(TrainerRank):
    """A rank that can be built anew, and shows its whole gradients."""

    def rebuild(self, spec: RankSpec) -> None:
        self._spec = spec
        self._engine = build(spec, self._world_size)
        self._teacher_heads = {(n, Version(0, 0)): load_head(m, torch.float32) for n, (m, _) in spec.heads.items()}

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
    model = AutoModelForCausalLM.from_pretrained(info.resolve(base), dtype=torch.float32)
    torch.manual_seed(1)
    model.resize_token_embeddings(model.config.vocab_size + padded, mean_resizing=False)
    with torch.no_grad():
        model.get_output_embeddings().weight[-padded:] = torch.randn(padded, model.config.hidden_size)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(info.resolve(base)).save_pretrained(folder)
    return str(folder)


class Bench:
    """Two ranks, and one of its own, for every engine configuration. Every second sample has token factors."""

    def __init__(self) -> None:
        self.config, self.prepared = demo(
            "objective={type: jsd}", "teacher.type=torch", f"temperature={TEMPERATURE}", "trainer.micro_batch_tokens=300"
        )
        self.groups = {size: self._group(size) for size in (1, 2)}
        self.samples = samples_of(self.prepared, 9)
        self.samples[3] = replace(
            self.samples[3], response_ids=self.samples[3].response_ids[:0], student_logprobs=np.empty(0, np.float32)
        )
        self.samples[5] = replace(
            self.samples[5], response_ids=self.samples[5].response_ids[:1], student_logprobs=np.zeros(1, np.float32)
        )

        rng = np.random.default_rng(3)
        for i in range(0, 9, 2):
            factors = rng.uniform(0, 1.5, len(self.samples[i].response_ids)).astype(np.float32)
            self.samples[i] = replace(self.samples[i], token_factors=factors)

    def _group(self, size: int) -> TrainerGroup:
        actor = ray.remote(ExactRank).options(**actor_options(self.config, "trainer"))
        spec = RankSpec(model=info.resolve("embedded:student"), trainer=self.config.trainer, steps=10, seed=0)
        ranks = [actor.remote(spec, i, size) for i in range(size)]
        group = TrainerGroup(ranks, self.config, self.prepared.vocab_size, None)
        run(group.setup())
        return group

    def loss_and_gradients(
        self,
        payload: Any,
        objective: Objective,
        *,
        ranks: int,
        zero_stage: int,
        student: str,
        teacher: str | dict[str, str],
        samples: list[TrainSample] | None = None,
    ) -> tuple[float, dict[str, np.ndarray]]:
        teachers = {"": teacher} if isinstance(teacher, str) else teacher
        heads = {name: (info.resolve(model), "float32") for name, model in teachers.items()}
        group, section = self.groups[ranks], self.config.trainer.model_copy(update={"zero_stage": zero_stage})
        spec = RankSpec(model=info.resolve(student), trainer=section, steps=10, seed=0, heads=heads)
        chosen = self.samples if samples is None else samples
        batch = TrainBatch(step=1, samples=tuple(replace(s, payload=payload) for s in chosen))

        async def go() -> tuple[float, dict[str, np.ndarray]]:
            await asyncio.gather(*(r.rebuild.remote(spec) for r in group.ranks))
            reports = await group._each(
                "forward_backward",
                group._plan(batch),
                step=1,
                objective=objective,
                batch_size=len(chosen),
                batch_tokens=batch.response_tokens,
                temperature=TEMPERATURE,
                vocab_size=self.prepared.vocab_size,
            )
            gradients = await asyncio.gather(*(r.gradients.remote() for r in group.ranks))
            return sum(r.loss for r in reports), gradients[0]

        return run(go())


def naive(
    samples: list[TrainSample], objective: Jsd, student: str, teacher: str | dict[str, float], rows: int
) -> tuple[float, dict[str, np.ndarray]]:
    """One process, sample by sample, full logits, autograd. ``teacher``: one, or the weights of several."""
    own = AutoModelForCausalLM.from_pretrained(info.resolve(student), dtype=torch.float32)
    shares = {teacher: 1.0} if isinstance(teacher, str) else teacher
    others = {AutoModelForCausalLM.from_pretrained(info.resolve(name), dtype=torch.float32): w for name, w in shares.items()}
    total = torch.zeros(())
    for s in samples:
        ids = torch.tensor([[*s.prompt_ids.tolist(), *s.response_ids.tolist()]])
        kept = slice(len(s.prompt_ids) - 1, ids.shape[1] - 1)
        with torch.no_grad():
            mixture = sum(w * torch.softmax(lm(ids).logits[0, kept, :rows] / TEMPERATURE, -1) for lm, w in others.items())
            taught = mixture.log() * TEMPERATURE  # type: ignore[union-attr]  # of no teacher the sum would be an int
        per_token = generalized_jsd(
            own(ids).logits[0, kept, :rows],
            taught,
            beta=objective.beta,
            temperature=TEMPERATURE,
            entry_clip=objective.entry_clip,
        )
        if s.token_factors is not None:
            per_token = per_token * torch.tensor(s.token_factors)
        size = max(1, len(s.response_ids)) * len(samples)
        if objective.normalization == "token":
            size = sum(len(each.response_ids) for each in samples)
        total = total + s.weight * per_token.sum() / size
    total.backward()
    return total.item(), {n: p.grad.numpy() for n, p in own.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def bench(ray_cluster: None) -> Bench:
    return Bench()


def scored_in_process(bench: Bench, teacher: str) -> Any:
    return ray.put(states_of(bench, teacher, bench.samples))


def states_of(
    bench: Bench, teacher: str, samples: list[TrainSample], name: str = "", kind: Any = "hidden", top_k: int = 0
) -> dict[int, Any]:
    spec = ScorerSpec(
        model=info.resolve(teacher),
        dtype="float32",
        temperature=TEMPERATURE,
        vocab_size=bench.prepared.vocab_size,
        kind=kind,
        top_k=top_k,
        name=name,
    )
    return Scorer(spec).score(requests(samples))[1]


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
def test_through_a_teacher_of_another_process_loss_and_gradient_are_those_of_full_logits(
    bench: Bench, beta: float, entry_clip: float | None
) -> None:
    objective = Jsd(beta=beta, entry_clip=entry_clip)
    if not hasattr(bench, "payload"):
        with bare(teacher_kind(bench.config, bench.prepared)) as teacher:
            _, payload = teacher.score.options(num_returns=2).remote(requests(bench.samples))
            bench.payload = ray.put(ray.get(payload))
    found = bench.loss_and_gradients(
        bench.payload, objective, ranks=2, zero_stage=2, student="embedded:student", teacher="embedded:teacher"
    )
    assert_equal(found, naive(bench.samples, objective, "embedded:student", "embedded:teacher", bench.prepared.vocab_size))


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("student", ["embedded:student", "embedded:teacher"], ids=["tied", "untied"])
def test_every_zero_stage_with_tied_and_untied_heads(bench: Bench, student: str, zero_stage: int, ranks: int) -> None:
    teacher = "embedded:student" if student == "embedded:teacher" else "embedded:teacher"
    objective = Jsd(beta=0.3, chunk_tokens=7)
    payload = scored_in_process(bench, teacher)
    found = bench.loss_and_gradients(payload, objective, ranks=ranks, zero_stage=zero_stage, student=student, teacher=teacher)
    assert_equal(found, naive(bench.samples, objective, student, teacher, bench.prepared.vocab_size))


def test_a_mean_over_tokens_is_the_same_over_two_sharded_ranks(bench: Bench) -> None:
    objective, models = Jsd(normalization="token"), {"student": "embedded:student", "teacher": "embedded:teacher"}
    payload = scored_in_process(bench, models["teacher"])
    found = bench.loss_and_gradients(payload, objective, ranks=2, zero_stage=3, **models)
    assert_equal(found, naive(bench.samples, objective, **models, rows=bench.prepared.vocab_size))


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


def gemma(folder: Path, rows: int) -> None:
    """Soft cap on the logits, and a head tied to scaled embeddings."""
    config = Gemma2Config(
        vocab_size=rows,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=3.0,
        max_position_embeddings=128,
        sliding_window=64,
        initializer_range=0.4,
    )
    Gemma2ForCausalLM(config).save_pretrained(folder)


def phi(folder: Path, rows: int) -> None:
    """A bias in the head."""
    config = PhiConfig(
        vocab_size=rows,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        initializer_range=0.4,
    )
    model = PhiForCausalLM(config)
    torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(folder)


@pytest.mark.parametrize("zero_stage", [1, 3])
@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize("make", [gemma, phi])
def test_soft_caps_and_biases_of_heads(bench: Bench, tmp_path: Path, make: Any, role: str, zero_stage: int) -> None:
    torch.manual_seed(2)
    make(tmp_path, bench.prepared.vocab_size)
    AutoTokenizer.from_pretrained(info.resolve("embedded:student")).save_pretrained(tmp_path)
    student, teacher = ("embedded:student", str(tmp_path)) if role == "teacher" else (str(tmp_path), "embedded:teacher")
    objective = Jsd(beta=0.3)
    found = bench.loss_and_gradients(
        scored_in_process(bench, teacher), objective, ranks=2, zero_stage=zero_stage, student=student, teacher=teacher
    )
    assert_equal(found, naive(bench.samples, objective, student, teacher, bench.prepared.vocab_size))


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_several_teachers_in_one_micro_batch(bench: Bench, zero_stage: int) -> None:
    """The loss is a sum over samples, so what each teacher's samples give alone must add up to what they give together."""
    teachers = {"maths": "embedded:teacher", "code": "embedded:student"}
    objective = Jsd(beta=0.5, entry_clip=0.05)
    shares = {"maths": bench.samples[::2], "code": bench.samples[1::2]}
    payload: dict[int, Any] = {}
    for name, model in teachers.items():
        payload |= states_of(bench, model, shares[name], name)
    student = "embedded:student"
    found = bench.loss_and_gradients(
        ray.put(payload), objective, ranks=2, zero_stage=zero_stage, student=student, teacher=teachers
    )
    parts = [naive(shares[n], objective, student, m, bench.prepared.vocab_size) for n, m in teachers.items()]
    sizes = [len(shares[name]) / len(bench.samples) for name in teachers]  # naive() divides by its own number of samples
    loss = sum(part[0] * size for part, size in zip(parts, sizes, strict=True))
    gradients = {n: sum(part[1][n] * size for part, size in zip(parts, sizes, strict=True)) for n in parts[0][1]}
    assert_equal(found, (loss, gradients))


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_a_mixture_of_teachers_on_every_sample(bench: Bench, zero_stage: int) -> None:
    """Each teacher's states are an object of their own in the store, of which the samples have both references."""
    teachers = {"maths": "embedded:teacher", "code": "embedded:student"}
    weights = {"embedded:teacher": 0.7, "embedded:student": 0.3}
    objective = Jsd(beta=0.5, entry_clip=0.05)
    refs = tuple(ray.put(states_of(bench, model, bench.samples, name)) for name, model in teachers.items())
    payload = Mixture(parts=refs, weights=(0.7, 0.3))
    found = bench.loss_and_gradients(
        payload, objective, ranks=2, zero_stage=zero_stage, student="embedded:student", teacher=teachers
    )
    assert_equal(found, naive(bench.samples, objective, "embedded:student", weights, bench.prepared.vocab_size))


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_a_rank_without_samples_neither_hangs_nor_changes_the_loss(bench: Bench, zero_stage: int) -> None:
    objective, one = Jsd(beta=0.0), bench.samples[:1]
    payload = ray.put(states_of(bench, "embedded:teacher", one))
    found = bench.loss_and_gradients(
        payload, objective, ranks=2, zero_stage=zero_stage, student="embedded:student", teacher="embedded:teacher", samples=one
    )
    assert_equal(found, naive(one, objective, "embedded:student", "embedded:teacher", bench.prepared.vocab_size))


def test_a_batch_of_empty_responses_has_no_loss_and_no_gradient(bench: Bench) -> None:
    empty = [bench.samples[3]]
    assert len(empty[0].response_ids) == 0
    payload = ray.put(states_of(bench, "embedded:teacher", empty))
    loss, gradients = bench.loss_and_gradients(
        payload, Jsd(beta=0.3), ranks=2, zero_stage=2, student="embedded:student", teacher="embedded:teacher", samples=empty
    )
    assert loss == 0
    assert all(not g.any() for g in gradients.values())


def test_top_k_with_a_tail_converges_to_the_exact_loss(bench: Bench) -> None:
    """On responses that make no sense, so that the teacher is unsure and the tail has mass."""
    student, teacher, vocabulary = "embedded:student", "embedded:teacher", bench.prepared.vocab_size
    rng = np.random.default_rng(0)
    samples = [replace(s, response_ids=rng.permutation(s.response_ids)) for s in bench.samples]
    exact = naive(samples, Jsd(beta=0.0), student, teacher, vocabulary)[0]
    short = {}
    for k in (1, 2, 8, 64, vocabulary - 1):
        payload = ray.put(states_of(bench, teacher, samples, kind="top_k", top_k=k))
        found, _ = bench.loss_and_gradients(
            payload, TopKForwardKL(k=k), ranks=1, zero_stage=1, student=student, teacher=teacher, samples=samples
        )
        short[k] = (exact - found) / exact
    print(f"exact {exact:.6f}; share of it that top-k lacks, by K: {short}")
    assert all(lacks > -1e-5 for lacks in short.values()), "a tail cannot raise the divergence"
    assert sorted(short.values(), reverse=True) == pytest.approx(list(short.values()), abs=1e-5)
    assert short[1] > 5 * short[64] > 0
    assert abs(short[vocabulary - 1]) < 1e-5


def test_a_teacher_that_is_certain_gives_a_finite_loss(bench: Bench, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(info.resolve("embedded:teacher"), dtype=torch.float32)
    with torch.no_grad():
        model.get_output_embeddings().weight *= 1000  # probability 1 in fp32: no mass is left for the tail
    model.save_pretrained(tmp_path)
    table = states_of(bench, str(tmp_path), bench.samples, kind="top_k", top_k=8)
    assert max(float(t.logprobs[:, 1].max()) for t in table.values() if len(t.logprobs)) == 0.0
    loss, gradients = bench.loss_and_gradients(
        ray.put(table), TopKForwardKL(k=8), ranks=1, zero_stage=1, student="embedded:student", teacher="embedded:teacher"
    )
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in gradients.values())
