"""The figures of student beside teacher against NumPy, one token at a time, from the whole logits of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from renio_pipeline.config.schema import Diagnostics
from renio_pipeline.models.student import TokenLogits, micro_batch_loss
from renio_pipeline.objectives import Objective
from renio_pipeline.objectives.agreement import Agreement
from renio_pipeline.objectives.agreement_sums import looked_at
from renio_pipeline.objectives.jsd import Jsd
from renio_pipeline.objectives.projection import Head
from renio_pipeline.objectives.sampled import Sampled
from renio_pipeline.objectives.top_k_forward_kl import TopKForwardKL
from renio_pipeline.types import FIRST_VERSION, Hidden, Mixture, TopK, TrainSample
from tests.unit.models.test_student import TEMPERATURE, V, make_model, make_samples, with_factors

WIDTH, SENT, LOOKED = 8, 6, 4  # the teachers' hidden size, the K that they send, the k that is compared
NAMES = ("", "other")  # two teachers, each with its own head
SETTINGS: dict[str, Any] = {"batch_size": 7, "batch_tokens": 27, "temperature": TEMPERATURE, "vocab_size": V}
EVERYWHERE = Diagnostics(top_k=LOOKED, share=1.0)


@pytest.fixture(scope="module")
def heads() -> dict[str, Head]:
    rng = np.random.default_rng(3)
    return {name: Head(torch.tensor(rng.normal(size=(V + 3, WIDTH)) * 0.6, dtype=torch.float32)) for name in NAMES}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def both_sides(model: TokenLogits, samples: Sequence[TrainSample], heads: dict[str, Head]) -> Any:
    """Of each sample the student's and the teacher's log-probabilities [T, V], and the two payloads that say the latter."""
    rng = np.random.default_rng(4)
    sides: list[tuple[np.ndarray, np.ndarray]] = []
    hidden: dict[int, Hidden] = {}
    tables: dict[int, TopK] = {}
    for i, s in enumerate(samples):
        ids = torch.tensor(np.concatenate([s.prompt_ids, s.response_ids])).long()
        with torch.no_grad():
            logits = model.lm(input_ids=ids[None], use_cache=False).logits[0, len(s.prompt_ids) - 1 : -1, :V]
        name, states = NAMES[i % 2], rng.normal(size=(len(s.response_ids), WIDTH)).astype(np.float32)
        log_q = log_softmax(states.astype(np.float64) @ heads[name].weight[:V].double().numpy().T / TEMPERATURE)
        sides.append((log_softmax(logits.double().numpy() / TEMPERATURE), log_q))
        hidden[s.sample_id] = Hidden(values=states, version=FIRST_VERSION, teacher=name)
        top = np.argsort(-log_q, axis=1)[:, :SENT]
        sent = np.concatenate([s.response_ids[:, None], top], axis=1).astype(np.int32)
        tables[s.sample_id] = TopK(token_ids=sent, logprobs=np.take_along_axis(log_q, sent.astype(np.int64), 1).astype("f4"))
    return sides, hidden, tables


def oracle(log_p: np.ndarray, log_q: np.ndarray, sampled: int, kind: str) -> Agreement:
    """Of one token. log_p, log_q [V]. kind: what the teacher sends."""
    own = Agreement(tokens=1, student_entropy=float(-(np.exp(log_p) * log_p).sum()))
    if kind == "sampled":
        return own
    S, T = set(np.argsort(-log_p)[:LOOKED]), set(np.argsort(-log_q)[:LOOKED])
    known = set(range(V)) if kind == "hidden" else {sampled, *np.argsort(-log_q)[:SENT]}
    q = {v: float(np.exp(log_q[v])) for v in known}
    rest = 1 - sum(q.values())
    entropy = -sum(p * np.log(p) for p in q.values()) - (rest * np.log(rest) if kind == "top_k" else 0)
    both = sorted(S & T)
    p = np.exp(log_p[both])
    return own + Agreement(
        compared=1,
        overlap=len(both) / LOOKED,
        teacher_mass=sum(q[v] for v in S & known),
        teacher_entropy=float(entropy),
        meeting=float(bool(both)),
        advantage=float((p * (log_q[both] - log_p[both])).sum() / p.sum()) if both else 0.0,
    )


def found(
    model: TokenLogits, split: Sequence[Sequence[TrainSample]], payload: Any, objective: Objective, **more: Any
) -> Agreement:
    total = Agreement()
    for samples in split:
        settings = {
            "batch_size": 7,
            "batch_tokens": 27,
            "temperature": TEMPERATURE,
            "vocab_size": V,
            "diagnostics": EVERYWHERE,
        } | more
        total += micro_batch_loss(model, samples, payload, objective=objective, **settings).agreement
    return total


def close(got: Agreement, expected: Agreement) -> None:
    for name, value in asdict(expected).items():
        assert asdict(got)[name] == pytest.approx(value, rel=2e-5, abs=2e-5), name


CASES = [
    (Sampled(importance_clip=None), "sampled"),
    (TopKForwardKL(k=SENT), "top_k"),
    (TopKForwardKL(k=SENT, tail=False), "top_k"),
    (Jsd(chunk_tokens=3), "hidden"),
    (Jsd(beta=0.5), "hidden"),
]


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize(("objective", "kind"), CASES, ids=lambda case: str(case)[:24])
def test_the_sums_are_those_of_numpy_packed_split_and_under_token_factors(
    objective: Objective, kind: str, packing: bool, heads: dict[str, Head], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, samples = make_model(), with_factors(make_samples()[0], 2)
    sides, hidden, tables = both_sides(model, samples, heads)
    expected = Agreement()
    for s, (log_p, log_q) in zip(samples, sides, strict=True):
        for t, token in enumerate(s.response_ids):
            expected += oracle(log_p[t], log_q[t], int(token), kind)
    assert expected.tokens == 27
    payload = {"sampled": {}, "top_k": tables, "hidden": hidden}[kind]
    options = {"packing": packing, "teacher_head": lambda name, version: heads[name]}
    close(found(model, [samples], payload, objective, **options), expected)
    monkeypatch.setattr("renio_pipeline.objectives.agreement_sums.LOGIT_ELEMENTS", 2 * V)  # chunks of two tokens
    close(found(model, [samples], payload, objective, **options), expected)
    close(found(model, [[s] for s in samples], payload, objective, **options), expected)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_loss_and_gradient_are_the_same_digit_for_digit(share: float) -> None:
    model, (samples, payload) = make_model(), make_samples()
    seen = []
    for diagnostics in (None, Diagnostics(share=share)):
        model.zero_grad()
        settings = {
            "objective": TopKForwardKL(k=4),
            "batch_size": 7,
            "batch_tokens": 27,
            "temperature": TEMPERATURE,
            "vocab_size": V,
        }
        micro = micro_batch_loss(model, samples, payload, diagnostics=diagnostics, **settings)
        micro.loss.backward()
        seen.append([micro.loss.detach(), micro.student_logprobs, *(p.grad.clone() for p in model.parameters())])
    for one, other in zip(*seen, strict=True):
        assert torch.equal(one, other)


def test_a_side_that_excludes_tokens_gives_finite_figures() -> None:
    """A teacher whose top k has tokens without any probability, and that gives the student's own token none."""
    model, (samples, _) = make_model(), make_samples([(3, 5)])
    ids = np.arange(5)[None].repeat(5, 0).astype(np.int32)
    ids[:, 0] = samples[0].response_ids
    logprobs = np.full((5, 5), -np.inf, np.float32)
    logprobs[:, 1] = 0.0
    payload = {samples[0].sample_id: TopK(token_ids=ids, logprobs=logprobs)}
    metrics = found(model, [samples], payload, TopKForwardKL(k=4)).metrics
    assert np.isfinite(list(metrics.values())).all()
    assert metrics["topk/overlap"] <= 1 / 4
    assert metrics["entropy/teacher"] == 0


def test_what_no_token_was_looked_at_for_is_left_out() -> None:
    assert Agreement().metrics == {}
    assert Agreement(tokens=2, student_entropy=1.0).metrics == {"entropy/student": 0.5}
    apart = Agreement(tokens=2, compared=2).metrics
    assert apart["topk/overlap"] == 0
    assert "topk/advantage" not in apart
    model, (samples, payload) = make_model(), make_samples([(3, 0)])
    assert found(model, [samples, []], payload, TopKForwardKL(k=4)).metrics == {}


@given(
    st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 60)), max_size=12, unique_by=lambda each: each[0]),
    st.floats(0, 1),
    st.randoms(use_true_random=False),
)
@settings(deadline=None, derandomize=True)
def test_which_tokens_are_looked_at_depends_on_nothing_but_the_sample(
    sizes: list[tuple[int, int]], share: float, random: Any
) -> None:
    (plain,) = make_samples([(1, 1)])[0]
    samples = [replace(plain, sample_id=i, response_ids=np.zeros(n, np.int32)) for i, n in sizes]

    def positions(part: Sequence[TrainSample]) -> dict[int, list[int]]:
        lengths = [len(s.response_ids) for s in part]
        flat = np.zeros(sum(lengths), bool)
        flat[looked_at(part, share).numpy()] = True
        return {s.sample_id: own.tolist() for s, own in zip(part, np.split(flat, np.cumsum(lengths)[:-1]), strict=True)}

    shuffled = random.sample(samples, len(samples))
    alone = {i: own for s in samples for i, own in positions([s]).items()}
    assert positions(shuffled) == alone if samples else not len(looked_at(samples, share))


@pytest.mark.parametrize("share", [0.0625, 0.5])
def test_about_the_share_is_looked_at(share: float) -> None:
    (plain,) = make_samples([(1, 1)])[0]
    samples = [replace(plain, sample_id=i, response_ids=np.zeros(50, np.int32)) for i in range(2000)]
    seen = looked_at(samples, share).numpy()
    assert len(seen) / 100_000 == pytest.approx(share, abs=0.005)
    assert np.bincount(seen % 50, minlength=50).min() > 0.7 * 2000 * share, "some position is seldom looked at"


@pytest.mark.parametrize("kind", ["hidden", "top_k"])
def test_of_a_mixture_of_equal_teachers_the_states_say_the_same_and_the_top_k_say_only_the_students_side(
    kind: str, heads: dict[str, Head]
) -> None:
    model, samples = make_model(), make_samples()[0]
    _, hidden, tables = both_sides(model, samples, heads)
    objective, payload = (Jsd(), hidden) if kind == "hidden" else (TopKForwardKL(k=SENT), tables)
    doubled = {i: Mixture(parts=(part, part), weights=(0.25, 0.75)) for i, part in payload.items()}
    options = {"teacher_head": lambda name, version: heads[name]}
    one, two = (found(model, [samples], given, objective, **options) for given in (payload, doubled))
    if kind == "hidden":
        close(two, one)
    else:
        close(two, Agreement(tokens=one.tokens, student_entropy=one.student_entropy))
