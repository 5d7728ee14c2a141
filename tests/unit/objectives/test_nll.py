"""The loss of supervised fine-tuning: against TRL's own numbers, and transformers' own loss, in every split, packed or not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from renio_pipeline.models import packed_attention
from renio_pipeline.models.batching import plan
from renio_pipeline.models.student import TokenLogits, micro_batch_loss
from renio_pipeline.objectives.without_teacher.nll import Nll
from renio_pipeline.types import TrainSample
from tests.unit.conftest import DEMO
from tests.unit.models.test_student import V, accumulated, close, gradients, make_model, make_samples, share

TRL = json.loads((Path(__file__).parents[1] / "vectors" / "sft.json").read_text())


def sample(sample_id: int, prompt: Sequence[int], response: Sequence[int]) -> TrainSample:
    """As a step makes it of a solution: nobody has computed a log-probability."""
    return TrainSample(
        sample_id=sample_id,
        prompt_ids=np.asarray(prompt, np.int32),
        response_ids=np.asarray(response, np.int32),
        student_logprobs=np.full(len(response), np.nan, np.float32),
        teacher_logprobs=None,
        weight=1.0,
        payload=None,
        off_policy=True,
    )


@pytest.mark.parametrize(("packing", "ranks", "budget"), [(True, 1, 1000), (True, 3, 80), (False, 2, 120)])
def test_loss_and_gradients_are_those_of_trl(packing: bool, ranks: int, budget: int) -> None:
    lm = AutoModelForCausalLM.from_pretrained(DEMO / "student", dtype=torch.float32)
    model = TokenLogits(lm.train())
    if packing:
        packed_attention.use(lm)
    given = [sample(i, s["prompt"], s["response"]) for i, s in enumerate(TRL["samples"])]
    tokens = sum(len(s.response_ids) for s in given)
    loss = 0.0
    for part in (part for rank in plan(given, ranks, budget, packing=packing) for part in rank):
        micro = micro_batch_loss(
            model,
            part,
            {},
            objective=Nll(),
            batch_size=len(given),
            batch_tokens=tokens,
            temperature=1.0,
            vocab_size=lm.config.vocab_size,
            packing=packing,
        )
        micro.loss.backward()
        loss += float(micro.loss.detach())
    assert loss == pytest.approx(TRL["loss"], rel=1e-5)
    found = {name: float(p.grad.norm()) for name, p in lm.named_parameters() if p.grad is not None}
    assert found == pytest.approx(TRL["gradient_norms"], rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("normalization", ["sample", "token"])
def test_it_is_the_loss_that_transformers_computes_of_labels(normalization: Literal["sample", "token"], packing: bool) -> None:
    model, (samples, _) = make_model(), make_samples()
    given = [sample(s.sample_id, s.prompt_ids, s.response_ids) for s in samples]
    model.zero_grad()
    total, tokens = torch.zeros((), dtype=torch.float64), sum(len(s.response_ids) for s in given)
    for s in given:
        if not len(s.response_ids):
            continue
        ids = torch.tensor(np.concatenate([s.prompt_ids, s.response_ids])).long()
        labels = ids.clone()
        labels[: len(s.prompt_ids)] = -100
        logits = model.lm(input_ids=ids[None], use_cache=False).logits[..., :V].double()
        mean = model.lm.loss_function(logits=logits, labels=labels[None], vocab_size=V)
        total = total + mean * (len(s.response_ids) / tokens if normalization == "token" else 1 / len(given))
    total.backward()
    expected = total.detach(), gradients(model)
    assert expected[0].item() > 0.1
    for ranks, budget in ((1, 1000), (2, 16), (9, 1)):
        split = [part for rank in plan(given, ranks, budget) for part in rank]
        close(accumulated(model, split, {}, Nll(normalization=normalization), packing=packing, temperature=1.0), expected, 1e-5)


def test_without_response_tokens_the_loss_is_zero_with_a_gradient() -> None:
    model, (samples, payload) = make_model(), make_samples([(2, 0), (3, 0)])
    micro: Any = share(model, samples, payload, objective=Nll(), batch_size=4)
    micro.loss.backward()
    assert micro.loss.item() == 0
