"""The objectives that learn from rewards, through a model: against whole logits, in every split, packed or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from renio_pipeline.models.batching import plan
from renio_pipeline.models.student import TokenLogits
from renio_pipeline.objectives import Objective, trained_objective
from renio_pipeline.objectives.jsd import Jsd
from renio_pipeline.objectives.sampled import Sampled
from renio_pipeline.objectives.top_k_forward_kl import TopKForwardKL
from renio_pipeline.objectives.with_reward import WithReward
from renio_pipeline.objectives.without_teacher.clipped import Clipped
from renio_pipeline.policy_loss import clipped_policy_loss, is_clipped, reference_divergence
from renio_pipeline.types import TrainSample
from tests.unit.conftest import make_config
from tests.unit.models.test_student import (
    TEMPERATURE,
    Gradients,
    K,
    V,
    accumulated,
    close,
    denominator,
    exact_payload,
    gradients,
    make_model,
    make_samples,
    share,
    with_factors,
)

CLIPPED = [Clipped(), Clipped(clip_low=0.1, clip_high=0.4, normalization="token"), Clipped(kl=0.3)]


def rewarded(samples: Sequence[TrainSample], model: TokenLogits) -> list[TrainSample]:
    """With advantages, every second one taught, and behaviours so near the student that some ratios are clipped, not all."""
    rng, found = np.random.default_rng(5), []
    for i, s in enumerate(samples):
        own = whole(model, s).detach().float().numpy()
        behaviour = (own + rng.normal(0, 0.3, len(own))).astype(np.float32)
        found.append(replace(s, advantage=float(rng.normal()), taught=i % 2 == 0, student_logprobs=behaviour))
    return found


def whole(model: TokenLogits, s: TrainSample) -> Tensor:
    """log p_S of a sample's response tokens, from whole logits."""
    ids = torch.tensor(np.concatenate([s.prompt_ids, s.response_ids])).long()
    logits = model.lm(input_ids=ids[None], use_cache=False).logits[0, len(s.prompt_ids) - 1 : -1, :V].double()
    targets = torch.tensor(s.response_ids).long()[:, None]
    return torch.log_softmax(logits / TEMPERATURE, dim=-1).gather(1, targets)[:, 0]


def naive_policy(model: TokenLogits, samples: Sequence[TrainSample], objective: Clipped) -> tuple[Tensor, Gradients]:
    model.zero_grad()
    loss = torch.zeros((), dtype=torch.float64)
    for s in samples:
        own, bounds = whole(model, s), {"low": objective.clip_low, "high": objective.clip_high}
        advantages = torch.full_like(own, s.advantage)
        per_token = clipped_policy_loss(own, torch.tensor(s.student_logprobs), advantages, **bounds)
        if objective.kl:
            per_token = per_token + objective.kl * reference_divergence(own, torch.tensor(s.teacher_logprobs))
        loss = loss + s.weight * per_token.sum() / max(1, denominator(s, samples, objective))
    loss.backward()
    return loss.detach(), gradients(model)


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("objective", CLIPPED, ids=str)
def test_the_policy_gradient_is_that_of_whole_logits_in_every_split(objective: Clipped, packing: bool) -> None:
    model, (samples, _) = make_model(), make_samples()
    given = rewarded(samples, model)
    expected = naive_policy(model, given, objective)
    assert max(float(g.abs().max()) for g in expected[1].values()) > 0.01
    for ranks, budget in ((1, 1000), (2, 16), (9, 1)):
        split = [part for rank in plan(given, ranks, budget) for part in rank]
        close(accumulated(model, split, {}, objective, packing=packing), expected, 1e-5)


def test_the_shares_of_clipped_tokens_and_of_divergence_are_measured() -> None:
    model, (samples, _) = make_model(), make_samples()
    given, objective = rewarded(samples, model), Clipped(kl=0.1)
    micro = share(model, given, {}, objective=objective)
    clipped, divergence = 0, 0.0
    for s in given:
        own = whole(model, s).detach()
        clipped += int(
            is_clipped(own, torch.tensor(s.student_logprobs), torch.full_like(own, s.advantage), low=0.2, high=0.2).sum()
        )
        divergence += float(reference_divergence(own, torch.tensor(s.teacher_logprobs)).sum())
    assert 0 < clipped < sum(len(s.response_ids) for s in given)
    assert objective.measured(given, micro.student_logprobs) == pytest.approx(
        {"policy/clipped": clipped, "policy/kl": divergence}, rel=1e-4
    )
    assert Clipped().measured(given, micro.student_logprobs).keys() == {"policy/clipped"}


@pytest.mark.parametrize("normalization", ["sample", "token"])
@pytest.mark.parametrize("make", [TopKForwardKL, Sampled, Jsd], ids=lambda cls: cls.__name__)
def test_beside_a_distillation_the_loss_is_the_sum_of_both(make: type[Objective], normalization: str) -> None:
    """The distillation's weights and factors are its own, and samples that are not taught have none of it."""
    model, (samples, payload) = make_model(), make_samples()
    given = with_factors(rewarded(samples, model), 2)
    inner: Any = make(normalization=normalization, **({"k": K} if make is TopKForwardKL else {}))
    options: dict[str, Any] = {}
    table: Any = payload
    if make is Jsd:
        table, head = exact_payload(samples)
        options = {"teacher_head": lambda name, version: head}
    policy = Clipped(normalization=normalization)
    both = WithReward(inner=inner, coefficient=0.7, policy=policy, normalization=normalization)
    taught = [s if s.taught else replace(s, weight=0.0) for s in given]
    distilled = accumulated(model, [taught], table, inner, **options)
    learned = accumulated(model, [[replace(s, weight=0.7, token_factors=None) for s in given]], table, policy)
    expected = distilled[0] + learned[0], {name: g + learned[1][name] for name, g in distilled[1].items()}
    assert abs(learned[0].item()) > 0.01
    for split in ([given], [[s] for s in given]):
        close(accumulated(model, split, table, both, **options), expected, 1e-5)
    divergence = share(model, given, table, objective=inner, **options).per_token
    torch.testing.assert_close(share(model, given, table, objective=both, **options).per_token, divergence)


def test_without_response_tokens_the_loss_is_zero_with_a_gradient() -> None:
    model, (samples, payload) = make_model(), make_samples([(2, 0), (3, 0)])
    for objective in (Clipped(kl=0.1), WithReward(inner=TopKForwardKL(k=K), coefficient=1)):
        micro = share(model, samples, payload, objective=objective, batch_size=4)
        micro.loss.backward()
        assert micro.loss.item() == 0
        assert set(objective.measured(samples, micro.student_logprobs).values()) == {0.0}


def test_a_run_trains_on_its_objective_with_its_reward() -> None:
    plain = trained_objective(make_config())
    assert isinstance(plain, TopKForwardKL)
    config = make_config(reward={"coefficient": 0.5}, samples_per_prompt=2, objective={"type": "jsd", "normalization": "token"})
    found = trained_objective(config)
    assert isinstance(found, WithReward)
    assert (found.coefficient, found.normalization, found.policy.normalization) == (0.5, "token", "token")
    assert isinstance(found.inner, Jsd)
    assert found.payload == config.objective.payload
