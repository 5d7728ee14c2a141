"""A micro-batch's share of the loss against a naive computation, one sequence at a time, from the whole logits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from renio_pipeline.divergence import generalized_jsd
from renio_pipeline.models import packed_attention
from renio_pipeline.models.batching import one_row, pack, plan, unpacked
from renio_pipeline.models.student import (
    Layout,
    TokenLogits,
    collate,
    micro_batch_loss,
    non_finite_samples,
)
from renio_pipeline.objectives import HIDDEN, Objective
from renio_pipeline.objectives.jsd import Jsd
from renio_pipeline.objectives.projection import Head
from renio_pipeline.objectives.sampled import Sampled
from renio_pipeline.objectives.top_k_forward_kl import TopKForwardKL
from renio_pipeline.types import FIRST_VERSION, Hidden, TopK, TrainSample

ROWS, V, K = 44, 40, 4  # output rows of the student, entries that both models have, the teacher's top K
TEMPERATURE = 1.3
SIZES = {"vocab_size": ROWS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
OBJECTIVES = [
    TopKForwardKL(k=K),
    TopKForwardKL(k=K, tail=False),
    TopKForwardKL(k=K, entry_clip=0.05),
    TopKForwardKL(k=K, token_clip=1.0),
    Sampled(importance_clip=None),
    Sampled(importance_clip=2.0),
]
EACH_OBJECTIVE = pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
LENGTHS = [(3, 5), (1, 9), (6, 0), (4, 1), (2, 7), (5, 5), (1, 0)]  # of prompt and response
Gradients = dict[str, Tensor]


def make_model(dtype: torch.dtype = torch.float32) -> TokenLogits:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lm = Qwen3ForCausalLM(Qwen3Config(**SIZES, **HEADS, tie_word_embeddings=False, initializer_range=0.4))
    return TokenLogits(lm.to(dtype))


def make_samples(lengths: Sequence[tuple[int, int]] = LENGTHS) -> tuple[list[TrainSample], dict[int, TopK]]:
    """Random sequences and a random teacher; about every second sampled token is one of the teacher's top K."""
    rng = np.random.default_rng(0)
    samples, payload = [], {}
    for sample_id, (prompt, response) in enumerate(lengths, 10):
        logits = torch.tensor(rng.normal(scale=2, size=(response, V)))
        teacher = torch.log_softmax(logits / TEMPERATURE, dim=-1).float()
        top = teacher.topk(K)
        likely = top.indices[:, 0].numpy()
        sampled = np.where(rng.random(response) < 0.5, likely, rng.integers(0, V, response)).astype(np.int32)
        own = teacher.gather(1, torch.tensor(sampled).long()[:, None])
        payload[sample_id] = TopK(
            token_ids=np.concatenate([sampled[:, None], top.indices.numpy()], axis=1).astype(np.int32),
            logprobs=torch.cat([own, top.values], dim=1).numpy(),
        )
        samples.append(
            TrainSample(
                sample_id=sample_id,
                prompt_ids=rng.integers(0, V, prompt).astype(np.int32),
                response_ids=sampled,
                student_logprobs=rng.normal(-4, 2, response).astype(np.float32),
                teacher_logprobs=own.squeeze(1).numpy(),
                weight=float(rng.uniform(0.2, 3)),
            )
        )
    return samples, payload


def naive_divergence(own: Tensor, sample: TrainSample, table: TopK, t: int, objective: Objective) -> Tensor:
    """One token's, from the student's log-probabilities of the whole vocabulary, own [V]."""
    target = int(sample.response_ids[t])
    if isinstance(objective, Sampled):
        now = float(own[target].detach())
        clip = objective.importance_clip
        ratio = 1.0 if clip is None else min(math.exp(now) / math.exp(sample.student_logprobs[t]), clip)
        return -ratio * (float(table.logprobs[t, 0]) - now) * own[target]
    ids = [int(i) for i in table.token_ids[t, 1:]]
    teacher = {i: math.exp(p) for i, p in zip(ids, table.logprobs[t, 1:], strict=True)}
    if objective.tail:
        teacher[target] = math.exp(table.logprobs[t, 0])
    student = {i: own[i].exp() for i in teacher}
    if objective.tail:
        pairs = [(teacher[i], student[i]) for i in teacher]
        rest = 1 - torch.stack(list(student.values())).sum()
        pairs.append((max(1 - math.fsum(teacher.values()), 1e-7), rest.clamp(min=1e-7)))
    else:
        ours, theirs = torch.stack(list(student.values())).sum(), math.fsum(teacher.values())
        pairs = [(teacher[i] / theirs, student[i] / ours) for i in teacher]
    entries = [p * (math.log(p) - q.log()) for p, q in pairs]
    if objective.entry_clip is not None:
        entries = [entry.clamp(0, objective.entry_clip) for entry in entries]
    total = torch.stack(entries).sum()
    return total if objective.token_clip is None else total.clamp(max=objective.token_clip)


def naive(
    model: TokenLogits, samples: Sequence[TrainSample], payload: dict[int, TopK], objective: Objective
) -> tuple[Tensor, Gradients]:
    model.zero_grad()
    loss = torch.zeros((), dtype=torch.float64)
    for s in samples:
        ids = torch.tensor(np.concatenate([s.prompt_ids, s.response_ids])).long()
        logits = model.lm(input_ids=ids[None], use_cache=False).logits[0, :, :V].double()
        own = torch.log_softmax(logits / TEMPERATURE, dim=-1)
        for t in range(len(s.response_ids)):
            before = len(s.prompt_ids) + t - 1
            token = naive_divergence(own[before], s, payload[s.sample_id], t, objective)
            factor = 1.0 if s.token_factors is None else float(s.token_factors[t])
            loss = loss + s.weight * factor * token / denominator(s, samples, objective)
    loss.backward()
    return loss.detach(), gradients(model)


def denominator(sample: TrainSample, samples: Sequence[TrainSample], objective: Objective) -> int:
    """What a token's divergence is divided by in the loss of a batch."""
    if objective.normalization == "token":
        return sum(len(s.response_ids) for s in samples)
    return len(sample.response_ids) * len(samples)


def gradients(model: TokenLogits) -> Gradients:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def share(model: TokenLogits, samples: Sequence[TrainSample], payload: dict[int, TopK], **changes: Any) -> Any:
    defaults = {"objective": TopKForwardKL(k=K), "batch_size": len(samples), "temperature": TEMPERATURE}
    defaults["batch_tokens"] = sum(len(s.response_ids) for s in samples)
    return micro_batch_loss(model, samples, payload, vocab_size=V, **(defaults | changes))


def accumulated(
    model: TokenLogits, split: Sequence[Sequence[TrainSample]], payload: dict[int, TopK], objective: Objective, **options: Any
) -> tuple[Tensor, Gradients]:
    """Loss and gradient, summed over the micro-batches of a split."""
    model.zero_grad()
    options |= {"batch_size": sum(map(len, split)), "batch_tokens": sum(len(s.response_ids) for part in split for s in part)}
    loss = torch.zeros(())
    for part in split:
        micro = share(model, part, payload, objective=objective, **options)
        micro.loss.backward()
        loss = loss + micro.loss.detach()
    return loss, gradients(model)


def close(actual: tuple[Tensor, Gradients], expected: tuple[Tensor, Gradients], tolerance: float) -> None:
    torch.testing.assert_close(actual[0].double(), expected[0].double(), rtol=tolerance, atol=tolerance)
    assert actual[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(actual[1][name], gradient, rtol=tolerance, atol=tolerance)


@EACH_OBJECTIVE
@PRECISIONS
def test_loss_and_gradient_are_those_of_the_whole_logits(objective: Objective, dtype: torch.dtype, tolerance: float) -> None:
    model, (samples, payload) = make_model(dtype), make_samples()
    expected = naive(model, samples, payload, objective)
    assert max(float(g.abs().max()) for g in expected[1].values()) > 0.01
    close(accumulated(model, [samples], payload, objective), expected, tolerance)


@EACH_OBJECTIVE
@PRECISIONS
def test_micro_batches_of_one_add_up_to_the_whole_batch(objective: Objective, dtype: torch.dtype, tolerance: float) -> None:
    model, (samples, payload) = make_model(dtype), make_samples()
    whole = accumulated(model, [samples], payload, objective)
    close(accumulated(model, [[s] for s in samples], payload, objective), whole, tolerance)


def with_factors(samples: Sequence[TrainSample], every: int = 1) -> list[TrainSample]:
    """Random token factors for every so many samples; the others have none."""
    rng = np.random.default_rng(1)
    drawn = [rng.uniform(0, 2, len(s.response_ids)).astype(np.float32) for s in samples]
    return [replace(s, token_factors=f) if i % every == 0 else s for i, (s, f) in enumerate(zip(samples, drawn, strict=True))]


@pytest.mark.parametrize("every", [1, 2], ids=["all", "some"])
@EACH_OBJECTIVE
def test_token_factors_are_in_loss_and_gradient_of_every_split(objective: Objective, every: int) -> None:
    model, (samples, payload) = make_model(), make_samples()
    dimmed = with_factors(samples, every)
    expected = naive(model, dimmed, payload, objective)
    close(accumulated(model, [dimmed], payload, objective), expected, 1e-5)
    close(accumulated(model, [[s] for s in dimmed], payload, objective), expected, 1e-5)


BY_TOKEN = [TopKForwardKL(k=K, normalization="token"), Sampled(importance_clip=2.0, normalization="token")]


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("every", [1, 3], ids=["all", "some"])
@pytest.mark.parametrize("objective", BY_TOKEN, ids=str)
def test_the_mean_over_tokens_is_that_of_the_whole_logits_in_every_split(
    objective: Objective, every: int, packing: bool
) -> None:
    model, (samples, payload) = make_model(), make_samples()
    dimmed = with_factors(samples, every)
    expected = naive(model, dimmed, payload, objective)
    other = naive(model, dimmed, payload, objective.model_copy(update={"normalization": "sample"}))
    assert abs(expected[0].item() - other[0].item()) > 0.05
    for ranks, budget in ((1, 1000), (1, 1), (2, 16), (9, 100)):
        split = [part for rank in plan(dimmed, ranks, budget) for part in rank]
        close(accumulated(model, split, payload, objective, packing=packing), expected, 1e-5)


def test_the_exact_mean_over_tokens_is_that_of_the_whole_logits() -> None:
    model, (samples, _) = make_model(), make_samples()
    dimmed, objective = with_factors(samples, 2), Jsd(beta=0.5, normalization="token", chunk_tokens=3)
    payload, head = exact_payload(samples)
    expected = dense(model, dimmed, payload, head, objective)
    for split in ([dimmed], [[s] for s in dimmed]):
        options: dict[str, Any] = {"teacher_head": lambda name, version: head}
        close(accumulated(model, split, payload, objective, **options), expected, 1e-5)  # type: ignore[arg-type]


def test_in_a_mean_over_tokens_an_empty_response_changes_nothing() -> None:
    model, (samples, payload) = make_model(), make_samples([(3, 4), (3, 0)])
    objective = TopKForwardKL(k=K, normalization="token")
    with_it, without = (share(model, samples[:n], payload, objective=objective).loss.item() for n in (2, 1))
    assert with_it == without > 0


def test_the_share_of_the_loss_after_pivotal_tokens_goes_by_the_same_mean() -> None:
    model, (samples, payload) = make_model(), make_samples()
    pivotal = [replace(s, until_pivotal=min(2, len(s.response_ids))) for s in samples]
    for objective in (TopKForwardKL(k=K), TopKForwardKL(k=K, normalization="token")):
        micro = share(model, pivotal, payload, objective=objective)
        whole, after = micro.magnitudes(pivotal)
        size = sum(len(s.response_ids) for s in samples) if micro.by_token else len(samples)
        assert whole / size == pytest.approx(micro.loss.item(), rel=1e-5)  # top-k divergences are never negative
        assert 0 < after < whole


EVERY_OBJECTIVE = pytest.mark.parametrize("objective", [*OBJECTIVES, Jsd(), Jsd(beta=0.5, entry_clip=0.1)], ids=str)


def exact_payload(samples: Sequence[TrainSample]) -> tuple[dict[int, Hidden], Head]:
    """Random hidden states of a narrower teacher, and its head."""
    rng = np.random.default_rng(2)
    sizes = {s.sample_id: (len(s.response_ids), 8) for s in samples}
    table = {i: Hidden(values=rng.normal(size=size).astype(np.float32), version=FIRST_VERSION) for i, size in sizes.items()}
    return table, Head(torch.tensor(rng.normal(size=(V, 8)), dtype=torch.float32))


def dense(
    model: TokenLogits, samples: Sequence[TrainSample], payload: dict[int, Hidden], head: Head, objective: Jsd
) -> tuple[Tensor, Gradients]:
    """The exact divergence from whole logits of both models, one sequence at a time, with its factors."""
    model.zero_grad()
    loss = torch.zeros((), dtype=torch.float64)
    for s in samples:
        ids = torch.tensor(np.concatenate([s.prompt_ids, s.response_ids])).long()
        logits = model.lm(input_ids=ids[None], use_cache=False).logits[0, len(s.prompt_ids) - 1 : -1, :V].double()
        taught = torch.tensor(payload[s.sample_id].values).double() @ head.weight.double().T
        options = {"beta": objective.beta, "temperature": TEMPERATURE, "entry_clip": objective.entry_clip}
        per_token = generalized_jsd(logits, taught, **options)
        factors = torch.ones(len(per_token)) if s.token_factors is None else torch.tensor(s.token_factors)
        loss = loss + s.weight * (factors * per_token).sum() / max(1, denominator(s, samples, objective))
    loss.backward()
    return loss.detach(), gradients(model)


@pytest.mark.parametrize("every", [1, 2], ids=["all", "some"])
@pytest.mark.parametrize("objective", [Jsd(chunk_tokens=3), Jsd(beta=0.5, entry_clip=0.1), Jsd(beta=1.0)], ids=str)
def test_token_factors_are_in_the_exact_loss_too_chunked_packed_and_split(objective: Jsd, every: int) -> None:
    model, (samples, _) = make_model(), make_samples()
    dimmed = with_factors(samples, every)
    payload, head = exact_payload(samples)
    expected = dense(model, dimmed, payload, head, objective)
    for split in ([dimmed], [[s] for s in dimmed]):
        for packing in (True, False):
            options: dict[str, Any] = {"teacher_head": lambda name, version: head, "packing": packing}
            close(accumulated(model, split, payload, objective, **options), expected, 1e-5)  # type: ignore[arg-type]


@EVERY_OBJECTIVE
def test_a_factor_of_all_tokens_counts_as_a_weight_and_ones_change_no_digit(objective: Objective) -> None:
    model, (samples, payload) = make_model(), make_samples()
    options: dict[str, Any] = {}
    if objective.payload == HIDDEN:
        payload, head = exact_payload(samples)  # type: ignore[assignment]
        options = {"teacher_head": lambda name, version: head}

    def constant(factor: float) -> list[TrainSample]:
        return [replace(s, token_factors=np.full(len(s.response_ids), factor, np.float32)) for s in samples]

    plain = accumulated(model, [samples], payload, objective, **options)
    ones = accumulated(model, [constant(1)], payload, objective, **options)
    assert ones[0].item() == plain[0].item()
    assert all(torch.equal(ones[1][name], gradient) for name, gradient in plain[1].items())
    heavier = accumulated(model, [[replace(s, weight=4 * s.weight) for s in samples]], payload, objective, **options)
    close(accumulated(model, [constant(4)], payload, objective, **options), heavier, 1e-6)
    nothing = accumulated(model, [constant(0)], payload, objective, **options)
    assert nothing[0].item() == 0
    assert not any(gradient.any() for gradient in nothing[1].values())


@pytest.mark.parametrize(("ranks", "budget"), [(1, 20), (2, 16), (3, 1), (4, 30), (9, 100)])
def test_every_plan_over_ranks_adds_up_to_the_whole_batch(ranks: int, budget: int) -> None:
    model, (samples, payload) = make_model(), make_samples()
    whole = accumulated(model, [samples], payload, OBJECTIVES[0])
    split = [part for rank in plan(samples, ranks, budget) for part in rank]
    close(accumulated(model, split, payload, OBJECTIVES[0]), whole, 1e-5)


@EACH_OBJECTIVE
@pytest.mark.parametrize("responses", [[], [0], [0, 0]], ids=["no-sample", "one-empty", "two-empty"])
def test_without_response_tokens_every_gradient_is_zero_and_there(responses: list[int], objective: Objective) -> None:
    model, (samples, payload) = make_model(), make_samples([(2 + i, n) for i, n in enumerate(responses)])
    micro = share(model, samples, payload, objective=objective, batch_size=4)
    micro.loss.backward()
    assert micro.loss.item() == 0
    assert micro.per_token.shape == micro.student_logprobs.shape == (0,)
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_an_empty_response_counts_in_the_batch_and_adds_nothing() -> None:
    model, (samples, payload) = make_model(), make_samples([(3, 4), (3, 0)])
    with_it, without = (share(model, samples[:n], payload, batch_size=n).loss.item() for n in (2, 1))
    assert with_it == pytest.approx(without / 2, rel=1e-5)


def test_weights_scale_each_samples_share() -> None:
    model, (samples, payload) = make_model(), make_samples([(3, 4), (3, 6)])
    parts = [share(model, [replace(s, weight=1.0)], payload, batch_size=2).loss.item() for s in samples]
    assert min(parts) > 0.01
    assert abs(parts[0] - parts[1]) > 0.01
    for weights in ((1.0, 1.0), (0.25, 1.75), (0.0, 2.0)):
        weighted = [replace(s, weight=w) for s, w in zip(samples, weights, strict=True)]
        expected = sum(w * part for w, part in zip(weights, parts, strict=True))
        assert share(model, weighted, payload).loss.item() == pytest.approx(expected, rel=1e-5)


def test_uniform_and_other_weights_give_different_gradients() -> None:
    model, (samples, payload) = make_model(), make_samples()
    weighted = accumulated(model, [samples], payload, OBJECTIVES[0])[1]
    uniform = accumulated(model, [[replace(s, weight=1.0) for s in samples]], payload, OBJECTIVES[0])[1]
    assert any(not torch.allclose(weighted[name], uniform[name], atol=1e-3) for name in uniform)


@pytest.mark.parametrize(("tail", "counts"), [(True, True), (False, False)])
def test_the_sampled_token_counts_with_a_tail_and_not_without(tail: bool, counts: bool) -> None:
    model, (samples, payload) = make_model(), make_samples([(3, 8)])
    table = payload[10]
    outside = (table.token_ids[:, :1] != table.token_ids[:, 1:]).all(axis=1)
    assert outside.any()
    assert not outside.all()
    likelier = table.logprobs.copy()
    likelier[:, 0] += 0.5
    objective = TopKForwardKL(k=K, tail=tail)
    before = share(model, samples, payload, objective=objective).per_token
    after = share(model, samples, {10: replace(table, logprobs=likelier)}, objective=objective).per_token
    assert (before != after).tolist() == (outside & counts).tolist()


def test_output_rows_that_the_teacher_has_not_take_no_part() -> None:
    model, (samples, payload) = make_model(), make_samples()
    before, found = accumulated(model, [samples], payload, OBJECTIVES[0])
    assert not found["lm.lm_head.weight"][V:].any()
    with torch.no_grad():
        model.lm.lm_head.weight[V:] = 100.0
    close(accumulated(model, [samples], payload, OBJECTIVES[0]), (before, found), 1e-7)


def test_the_log_probabilities_reported_are_the_students_at_the_distillation_temperature() -> None:
    model, (samples, payload) = make_model(), make_samples()
    expected = []
    for s in samples:
        ids = torch.tensor(np.concatenate([s.prompt_ids, s.response_ids])).long()
        own = torch.log_softmax(model.lm(input_ids=ids[None]).logits[0, :, :V] / TEMPERATURE, dim=-1)
        expected += [own[len(s.prompt_ids) + t - 1, token].item() for t, token in enumerate(s.response_ids)]
    found = share(model, samples, payload).student_logprobs
    assert not found.requires_grad
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("bad", [0, 1, 3, 5])
def test_a_loss_that_is_not_finite_is_traced_to_its_sample(bad: int, value: float) -> None:
    model, (samples, payload) = make_model(), make_samples()
    table = payload[samples[bad].sample_id]
    broken = table.logprobs.copy()
    broken[-1, -1] = value
    micro = share(model, samples, payload | {samples[bad].sample_id: replace(table, logprobs=broken)})
    assert not torch.isfinite(micro.loss)
    assert non_finite_samples(samples, micro.per_token) == [samples[bad].sample_id]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.lists(st.sampled_from([0.0, 1.5, math.nan, math.inf, -math.inf]), max_size=4), max_size=6))
def test_non_finite_samples_names_exactly_those_that_have_one(values: list[list[float]]) -> None:
    samples = [
        TrainSample(
            sample_id=100 + i,
            prompt_ids=np.zeros(1, np.int32),
            response_ids=np.zeros(len(v), np.int32),
            student_logprobs=np.zeros(len(v)),
            teacher_logprobs=np.zeros(len(v)),
            weight=1.0,
        )
        for i, v in enumerate(values)
    ]
    expected = [100 + i for i, v in enumerate(values) if not all(map(math.isfinite, v))]
    assert non_finite_samples(samples, torch.tensor([x for v in values for x in v])) == expected


def test_collate_pads_on_the_right_and_points_before_each_response_token() -> None:
    samples, _ = make_samples([(2, 3), (4, 0), (1, 1)])
    batch = collate(samples, lay=unpacked)
    assert batch.position_ids is None
    assert batch.input_ids.shape == (3, 5)
    assert batch.positions.tolist() == [1, 2, 3, 10]
    flat = batch.input_ids.flatten()
    assert flat[batch.positions + 1].tolist() == batch.targets.tolist()
    assert batch.targets.tolist() == [*samples[0].response_ids.tolist(), *samples[2].response_ids.tolist()]


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9)), max_size=9), st.sampled_from([pack, unpacked, one_row]))
def test_every_sample_lies_whole_in_a_row_and_its_positions_begin_anew(lengths: list[tuple[int, int]], lay: Layout) -> None:
    samples, _ = make_samples(lengths)
    batch = collate(samples, lay=lay)
    width, starts = batch.input_ids.shape[1], []
    for s, first in zip(samples, batch.positions.split([len(s.response_ids) for s in samples]), strict=True):
        if len(first) == 0:
            continue  # without a response nothing says where it is
        start = int(first[0]) - len(s.prompt_ids) + 1
        here = slice(start, start + s.tokens)
        assert start // width == (start + s.tokens - 1) // width
        assert batch.input_ids.flatten()[here].tolist() == [*s.prompt_ids, *s.response_ids]
        if batch.position_ids is not None:
            assert batch.position_ids.flatten()[here].tolist() == list(range(s.tokens))
        starts.append((start, start + s.tokens))
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(sorted(starts)))


@EACH_OBJECTIVE
def test_packing_changes_neither_loss_nor_gradient(objective: Objective) -> None:
    model, (samples, payload) = make_model(), make_samples()
    apart = accumulated(model, [samples], payload, objective, packing=False)
    close(accumulated(model, [samples], payload, objective), apart, 1e-5)
    packed, alone = (share(model, samples, payload, packing=packing).computed_tokens for packing in (True, False))
    assert (packed, alone) == (49, 7 * 10)
    packed_attention.use(model.lm)
    close(accumulated(model, [samples], payload, objective), apart, 1e-5)
    assert share(model, samples, payload).computed_tokens == sum(s.tokens for s in samples)
