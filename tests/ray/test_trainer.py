"""DeepSpeed ranks: the split over ranks, micro-batches and ZeRO stages never changes a number."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import ray
import torch
from transformers import AutoModelForCausalLM

from actors.cluster.placement import actor_options
from actors.trainer.deepspeed_engine import build
from actors.trainer.group import TrainerGroup
from actors.trainer.messages import RankSpec
from actors.trainer.rank import TrainerRank
from renio_pipeline.config import RunConfig
from renio_pipeline.models import info
from renio_pipeline.preflight import Prepared
from renio_pipeline.types import TopK, TrainBatch, TrainReport, TrainSample
from tests.ray.conftest import demo, run, samples_of

STEPS = 2


class ReusedRank(TrainerRank):
    """A rank whose engine is built anew for every case: starting a process costs more than the cases."""

    def rebuild(self, spec: RankSpec) -> bool:
        """Whether the parameters were partitioned when DeepSpeed was handed the model."""
        import deepspeed

        initialize, born = deepspeed.initialize, []

        def watched(*, model: Any, **kwargs: Any) -> Any:
            born.append(all(hasattr(p, "ds_id") and p.numel() == 0 for p in model.parameters()))
            return initialize(model=model, **kwargs)

        deepspeed.initialize = watched
        try:
            self._spec, self._engine = spec, build(spec, self._world_size)
        finally:
            deepspeed.initialize = initialize
        return born[0]


class Case:
    """Ranks of one world size, for many engine configurations."""

    def __init__(self, world_size: int) -> None:
        self.config, self.prepared = demo("trainer.lr=0.0001", f"pools.trainer.replicas={world_size}", "diagnostics.share=0.5")
        options = actor_options(self.config, "trainer")
        actor = ray.remote(ReusedRank).options(**options)
        self.spec = _spec(self.config)
        self.group = TrainerGroup(
            [actor.remote(self.spec, i, world_size) for i in range(world_size)], self.config, self.prepared.vocab_size, None
        )
        run(self.group.setup())

    def train(self, samples: list[TrainSample], *, zero_stage: int, micro_batch_tokens: int, **trainer: Any) -> Any:
        """STEPS steps from the same start. Returns the reports and the weights."""
        section = self.config.trainer.model_copy(update={"zero_stage": zero_stage, **trainer})
        config = self.config.model_copy(
            update={"trainer": section.model_copy(update={"micro_batch_tokens": micro_batch_tokens})}
        )
        group = TrainerGroup(self.group.ranks, config, self.prepared.vocab_size, None)

        async def go() -> tuple[list[TrainReport], dict[str, np.ndarray]]:
            await asyncio.gather(*(r.rebuild.remote(replace(self.spec, trainer=section)) for r in group.ranks))
            reports = [await group.train(TrainBatch(step=i + 1, samples=tuple(samples))) for i in range(STEPS)]
            states = await asyncio.gather(*(r.state.remote() for r in group.ranks))
            return reports, states[0]

        return run(go())


def _spec(config: RunConfig) -> RankSpec:
    return RankSpec(model=info.resolve(config.student), trainer=config.trainer, steps=10, seed=0)


@pytest.fixture(scope="module")
def one_rank(ray_cluster: None) -> Case:
    return Case(1)


@pytest.fixture(scope="module")
def two_ranks(ray_cluster: None) -> Case:
    return Case(2)


@pytest.fixture(scope="module")
def samples(one_rank: Case) -> list[TrainSample]:
    """Thirteen samples with a top-k payload, every second one with token factors; one response is empty, one a single token."""
    made = samples_of(one_rank.prepared, 13)
    made[3] = replace(made[3], response_ids=made[3].response_ids[:0], student_logprobs=np.empty(0, np.float32))
    made[5] = replace(made[5], response_ids=made[5].response_ids[:1], student_logprobs=made[5].student_logprobs[:1])
    made = [replace(s, token_factors=_factors(s), until_pivotal=2) if i % 2 else s for i, s in enumerate(made)]
    return _with_payload(made, one_rank.prepared)


def _factors(sample: TrainSample) -> np.ndarray:
    """As of a second token that is pivotal: 1 up to it, a quarter after it."""
    return np.where(np.arange(len(sample.response_ids)) < 2, 1, 0.25).astype(np.float32)


def _with_payload(samples: list[TrainSample], prepared: Prepared) -> list[TrainSample]:
    rng = np.random.default_rng(0)
    tables = {}
    for s in samples:
        logprobs = np.log(rng.dirichlet(np.ones(prepared.vocab_size), len(s.response_ids)).astype(np.float32) + 1e-9)
        top = np.argsort(-logprobs, axis=1)[:, :8] if len(logprobs) else np.empty((0, 8), np.int64)
        ids = np.concatenate([s.response_ids[:, None], top], axis=1).astype(np.int32)
        tables[s.sample_id] = TopK(token_ids=ids, logprobs=np.take_along_axis(logprobs, ids.astype(np.int64), 1))
    payload = ray.put(tables)
    return [replace(s, payload=payload) for s in samples]


@pytest.fixture(scope="module")
def whole(one_rank: Case, samples: list[TrainSample]) -> Any:
    """One rank, ZeRO 0, the whole batch at once: what every other split must equal."""
    return one_rank.train(samples, zero_stage=0, micro_batch_tokens=10**6)


@pytest.mark.parametrize("micro_batch_tokens", [1, 200, 10**6])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("ranks", ["one_rank", "two_ranks"])
def test_loss_gradient_norm_and_weights_do_not_depend_on_the_split(
    ranks: str, zero_stage: int, micro_batch_tokens: int, whole: Any, samples: list[TrainSample], request: Any
) -> None:
    case = request.getfixturevalue(ranks)
    reports, state = case.train(samples, zero_stage=zero_stage, micro_batch_tokens=micro_batch_tokens)
    for report, expected in zip(reports, whole[0], strict=True):
        assert report.loss == pytest.approx(expected.loss, rel=1e-5)
        assert report.loss_after_pivotal == pytest.approx(expected.loss_after_pivotal, rel=1e-5)
        assert report.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5)
        assert report.mismatch_mean == pytest.approx(expected.mismatch_mean, rel=1e-4)
        assert report.mismatch_max == pytest.approx(expected.mismatch_max, rel=1e-4)
        assert report.agreement == pytest.approx(expected.agreement, rel=1e-4)
        assert len(report.agreement) == 5
    assert state.keys() == whole[1].keys()
    worst = max(float(np.abs(state[name] - whole[1][name]).max()) for name in state)
    assert worst < 1e-5


def test_token_factors_lower_the_loss_by_what_they_take_from_the_part_after_the_token(
    one_rank: Case, samples: list[TrainSample], whole: Any
) -> None:
    without = [replace(s, token_factors=None) for s in samples]
    plain, _ = one_rank.train(without, zero_stage=0, micro_batch_tokens=10**6)
    share = plain[0].loss_after_pivotal
    assert 0.1 < share < 0.9
    assert whole[0][0].loss_after_pivotal == pytest.approx(share, rel=1e-5), "factors do not change what it is a share of"
    assert whole[0][0].loss == pytest.approx(plain[0].loss * (1 - 0.75 * share), rel=1e-5)


def test_the_mismatch_is_between_the_generators_log_probabilities_and_the_models(
    one_rank: Case, samples: list[TrainSample], whole: Any
) -> None:
    model = AutoModelForCausalLM.from_pretrained(info.resolve("embedded:student"), dtype=torch.float32)
    gaps = []
    for s in samples:
        ids = torch.tensor(np.concatenate([s.prompt_ids, s.response_ids])).long()[None]
        with torch.no_grad():
            logits = model(ids).logits[0, len(s.prompt_ids) - 1 : -1, : one_rank.prepared.vocab_size]
        trainer = torch.log_softmax(logits / one_rank.config.temperature, -1).gather(1, ids[0, len(s.prompt_ids) :, None])[:, 0]
        gaps.append((trainer - torch.tensor(s.student_logprobs)).abs())
    first = whole[0][0]
    assert first.mismatch_mean == pytest.approx(float(torch.cat(gaps).mean()), rel=1e-4)
    assert first.mismatch_max == pytest.approx(float(torch.cat(gaps).max()), rel=1e-4)


@pytest.mark.parametrize(("zero_stage", "partitioned"), [(2, False), (3, True)])
def test_at_zero_3_the_model_is_partitioned_while_it_loads(two_ranks: Case, zero_stage: int, partitioned: bool) -> None:
    spec = replace(two_ranks.spec, trainer=two_ranks.spec.trainer.model_copy(update={"zero_stage": zero_stage}))
    assert ray.get([rank.rebuild.remote(spec) for rank in two_ranks.group.ranks]) == [partitioned] * 2


def test_training_moves_the_weights(one_rank: Case, whole: Any) -> None:
    start = AutoModelForCausalLM.from_pretrained(info.resolve("embedded:student"), dtype=torch.float32)
    moved = max(float(np.abs(whole[1][name] - p.detach().numpy()).max()) for name, p in start.named_parameters())
    assert moved > 5e-5


def test_clipping_bounds_the_update_and_reports_the_norm_before_it(
    one_rank: Case, samples: list[TrainSample], whole: Any
) -> None:
    reports, _ = one_rank.train(samples, zero_stage=1, micro_batch_tokens=10**6, max_grad_norm=1e-6)
    assert reports[0].grad_norm == pytest.approx(whole[0][0].grad_norm, rel=1e-5)


def test_more_ranks_than_samples_neither_hang_nor_change_the_loss(
    one_rank: Case, two_ranks: Case, samples: list[TrainSample]
) -> None:
    alone = one_rank.train(samples[:1], zero_stage=2, micro_batch_tokens=10**6)
    shared = two_ranks.train(samples[:1], zero_stage=2, micro_batch_tokens=10**6)
    assert shared[0][1].loss == pytest.approx(alone[0][1].loss, rel=1e-5)


def test_bf16_training_runs_and_keeps_its_master_weights(one_rank: Case, samples: list[TrainSample]) -> None:
    reports, _ = one_rank.train(samples, zero_stage=1, micro_batch_tokens=10**6, dtype="bfloat16")
    assert np.isfinite([r.loss for r in reports]).all()


def test_the_schedule_reaches_the_optimizer(one_rank: Case, samples: list[TrainSample]) -> None:
    reports, _ = one_rank.train(samples, zero_stage=1, micro_batch_tokens=10**6, schedule="linear", lr=1e-3)
    assert [r.lr for r in reports] == pytest.approx([1e-3, 0.9e-3])


def test_a_loss_that_is_not_finite_names_the_step_and_the_sample(two_ranks: Case, samples: list[TrainSample]) -> None:
    tables = dict(ray.get(samples[7].payload))
    broken = tables[7].logprobs.copy()
    broken[2, 1] = np.nan
    payload = ray.put(tables | {7: TopK(token_ids=tables[7].token_ids, logprobs=broken)})
    poisoned = [replace(s, payload=payload) for s in samples]
    with pytest.raises(Exception, match=r"step 1: the loss is not finite; samples \[7\]"):  # last: a rank is left waiting
        two_ranks.train(poisoned, zero_stage=1, micro_batch_tokens=10**6)


def test_a_gradient_that_is_not_finite_names_the_step_and_the_samples(one_rank: Case, samples: list[TrainSample]) -> None:
    heavy = [replace(s, weight=1e36) for s in samples]  # a finite loss, whose gradient's norm overflows
    with pytest.raises(Exception, match=r"step 1: gradient norm is inf; samples of this rank: \[.*12.*\]"):
        one_rank.train(heavy, zero_stage=1, micro_batch_tokens=10**6)
