"""Text from a transformers model, against transformers' own generation and the distribution that was asked for."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from renio_pipeline.models import info
from renio_pipeline.models.teacher import Scorer
from renio_pipeline.models.writing import continue_prompts
from renio_pipeline.types import ContinuationRequest, ScorerSpec

V = 40


@cache
def scorer() -> Scorer:
    """A teacher on the torch engine, whose attention is the packed one."""
    model = info.resolve("embedded:teacher")
    return Scorer(ScorerSpec(model=model, dtype="float32", temperature=1.3, vocab_size=V, kind="sampled"))


def asked(text: str = "12+34-5", **changes: Any) -> ContinuationRequest:
    tokenizer = info.read_tokenizer("embedded:teacher", "teacher")
    ids = np.asarray(tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)
    return replace(ContinuationRequest(prompt_ids=ids, max_tokens=12, seed=0, temperature=0.0), **changes)


PROMPTS = ["12+34-5", "7", "1+2+3+4+5+6+7", "99-98"]


def test_the_likeliest_tokens_are_those_of_transformers_whatever_else_is_in_the_batch() -> None:
    lm = scorer().model
    found = scorer().write([asked(text) for text in PROMPTS])
    assert len({len(text.token_ids) for text in found}) > 1, "all are of one length: nothing left the batch"
    for text, one in zip(PROMPTS, found, strict=True):
        ids = torch.tensor(asked(text).prompt_ids).long()[None]
        expected = lm.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)[0, ids.shape[1] :]
        np.testing.assert_array_equal(one.token_ids, expected.numpy())
        ended = int(expected[-1]) == lm.generation_config.eos_token_id
        assert one.stop_reason == ("stop" if ended else "length")


def nucleus(p: np.ndarray, mass: float) -> np.ndarray:
    falling = np.sort(p)[::-1]
    return p * (p >= falling[np.cumsum(falling) - falling < mass].min())


DISTRIBUTIONS: list[tuple[dict[str, Any], Any]] = [
    ({"temperature": 1.0}, lambda p: p),
    ({"temperature": 2.5}, lambda p: p**0.4),
    ({"temperature": 1.0, "top_k": 3}, lambda p: p * (p >= np.sort(p)[-3])),
    ({"temperature": 1.0, "top_p": 0.6}, lambda p: nucleus(p, 0.6)),
]


@pytest.mark.parametrize(("settings", "kept"), DISTRIBUTIONS, ids=[str(s) for s, _ in DISTRIBUTIONS])
def test_tokens_are_drawn_from_the_distribution_that_was_asked_for(settings: dict[str, Any], kept: Any) -> None:
    """The distillation temperature, here 1.3, has no part in it; nor have output rows beyond V."""
    one = asked("12+34-", max_tokens=1, **settings)
    lm = scorer().model
    with torch.no_grad():
        logits = lm(torch.tensor(one.prompt_ids).long()[None]).logits[0, -1, :V].double()
    p = kept(torch.softmax(logits, -1).numpy())
    p = p / p.sum()
    draws = [replace(one, seed=i) for i in range(800)]
    tokens = [int(text.token_ids[0]) for text in continue_prompts(lm, draws, vocab_size=V, end_ids=[])]
    counts = np.bincount(tokens, minlength=V)
    assert not counts[p == 0].any()
    assert np.abs(counts / len(draws) - p).max() < 4 * (0.25 / len(draws)) ** 0.5


def test_a_text_depends_on_its_seed_and_not_on_the_batch() -> None:
    several = [asked(text, temperature=1.5, seed=i) for i, text in enumerate(PROMPTS * 3)]
    together = scorer().write(several)
    for one, expected in zip(several, together, strict=True):
        np.testing.assert_array_equal(scorer().write([one])[0].token_ids, expected.token_ids)
    assert len({text.token_ids.tobytes() for text in together[::4]}) > 1, "three seeds, one text"


def test_a_text_ends_at_a_token_that_was_named_and_keeps_it() -> None:
    (free,) = scorer().write([asked(PROMPTS[2])])
    stop = int(free.token_ids[2])
    (ended,) = scorer().write([asked(PROMPTS[2], stop_token_ids=(stop,))])
    first = free.token_ids.tolist().index(stop)
    assert ended.token_ids.tolist() == free.token_ids.tolist()[: first + 1]
    assert ended.stop_reason == "stop"


def test_what_does_not_fit_or_says_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a prompt of \d+ tokens and a continuation of 100000 do not fit into the model's"):
        scorer().write([asked(max_tokens=100000)])
    for change in ({"max_tokens": 0}, {"n": 0}, {"top_p": 0.0}, {"temperature": -1.0}, {"prompt_ids": np.empty(0, np.int32)}):
        with pytest.raises(ValueError, match=r"a request to a teacher|a teacher samples at"):
            asked(**change)
