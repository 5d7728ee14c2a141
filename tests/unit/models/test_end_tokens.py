"""A teacher that ends with another token than the student: it scores as if the student's were its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from renio_pipeline.models import info
from renio_pipeline.models.end_tokens import exchanged
from renio_pipeline.models.heads import head_of
from renio_pipeline.models.teacher import Scorer
from renio_pipeline.objectives.payload import from_numpy
from renio_pipeline.types import Hidden, ScoreRequest, ScorerSpec, TopK

V, K, OURS, THEIRS, THIRD = 200, 5, 7, 11, 150
PAIRS = ((OURS, THEIRS),)
RESPONSE = np.array([20, THEIRS, 33, 21, OURS], np.int32)  # the teacher's own end occurs, too


def scorer(kind: Any, *, exchanging: bool = True) -> Scorer:
    model = info.resolve("embedded:teacher")
    top_k = K if kind == "top_k" else 0
    spec = ScorerSpec(model=model, dtype="float32", temperature=1.3, vocab_size=V, kind=kind, top_k=top_k)
    return Scorer(replace(spec, end_tokens=PAIRS) if exchanging else spec)


def request(response: np.ndarray = RESPONSE) -> ScoreRequest:
    return ScoreRequest(sample_id=3, prompt_ids=np.array([40, 41, 42], np.int32), response_ids=response)


def expected(model: Any) -> torch.Tensor:
    """[T, V]: the teacher reads its own end where the student's stands, and its probability of that is the student's."""
    read = [THEIRS if i == OURS else OURS if i == THEIRS else i for i in RESPONSE.tolist()]
    with torch.no_grad():
        logits = model(torch.tensor([[40, 41, 42, *read]])).logits[0, 2:-1, :V].clone()
    logits[:, [OURS, THEIRS]] = logits[:, [THEIRS, OURS]]
    return torch.log_softmax(logits / 1.3, dim=-1)


def test_ids_change_places_and_come_back() -> None:
    ids = np.array([[OURS, 1], [THEIRS, THIRD]], np.int32)
    pairs = (*PAIRS, (THIRD, 2))
    assert exchanged(ids, pairs).tolist() == [[THEIRS, 1], [OURS, 2]]
    assert exchanged(exchanged(ids, pairs), pairs).tolist() == ids.tolist()
    assert exchanged(ids, ()) is ids


@pytest.mark.parametrize("kind", ["sampled", "top_k", "hidden"])
def test_every_payload_says_of_the_students_end_what_the_teacher_says_of_its_own(kind: Any) -> None:
    made = scorer(kind)
    (logprobs,), payload = made.score([request()])
    table = expected(made.model)
    ids = torch.tensor(RESPONSE).long()
    np.testing.assert_allclose(logprobs, table.gather(1, ids[:, None])[:, 0].numpy(), atol=1e-5)
    other = scorer(kind, exchanging=False).score([request()])[0][0]
    assert abs(other[-1] - logprobs[-1]) > 0.1, "the two ends are alike to this teacher: nothing is shown"
    own = payload.get(3)
    if isinstance(own, TopK):
        np.testing.assert_array_equal(own.token_ids[:, 0], RESPONSE)
        by_id = table.gather(1, torch.tensor(own.token_ids).long())
        np.testing.assert_allclose(own.logprobs, by_id.numpy(), atol=1e-5)
        np.testing.assert_allclose(own.logprobs[:, 1:], table.topk(K).values.numpy(), atol=1e-5)
    elif isinstance(own, Hidden):
        head = head_of(made.model).exchanged(PAIRS)  # as the trainer has it
        logits = torch.nn.functional.linear(from_numpy(own.values), head.weight, head.bias)[:, :V] * head.scale
        np.testing.assert_allclose(torch.log_softmax(logits / 1.3, -1).numpy(), table.numpy(), atol=1e-4)
        assert head.weight is not head_of(made.model).weight, "the teacher's own head stays as it is"
