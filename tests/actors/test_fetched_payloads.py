"""What a rank fetches of a micro-batch's payloads. Ray's ``get`` is a fake: a dictionary of objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import ray

from actors.trainer.micro_batches import fetch_payloads
from renio_pipeline.types import Aligned, Mixture, TrainSample

STORE = {"maths": {1: "m1", 2: "m2", 9: "m9"}, "code": {1: "c1", 2: "c2"}}
NONE = np.zeros(0, np.int32)
SAMPLE = TrainSample(sample_id=1, prompt_ids=NONE, response_ids=NONE, student_logprobs=NONE, teacher_logprobs=NONE, weight=1.0)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The references that were asked for."""
    asked: list[str] = []

    def get(refs: Sequence[str]) -> list[Any]:
        asked.extend(refs)
        return [STORE[ref] for ref in refs]

    monkeypatch.setattr(ray, "get", get)
    return asked


def test_each_object_is_fetched_once_and_gives_the_samples_their_own(fetched: list[str]) -> None:
    samples = [replace(SAMPLE, sample_id=i, payload="maths") for i in (1, 2)]
    assert fetch_payloads(samples) == {1: "m1", 2: "m2"}
    assert fetched == ["maths"]


def test_a_mixture_has_a_part_from_each_of_its_objects(fetched: list[str]) -> None:
    both = Mixture(parts=("maths", "code"), weights=(0.7, 0.3))
    samples = [replace(SAMPLE, sample_id=i, payload=both) for i in (1, 2)]
    assert fetch_payloads(samples) == {
        1: Mixture(parts=("m1", "c1"), weights=(0.7, 0.3)),
        2: Mixture(parts=("m2", "c2"), weights=(0.7, 0.3)),
    }
    assert fetched == ["maths", "code"]


def test_without_payloads_nothing_is_fetched(fetched: list[str]) -> None:
    assert fetch_payloads([SAMPLE]) == {}
    assert fetched == []


def test_what_was_sent_of_a_teachers_own_tokens_keeps_their_places(fetched: list[str]) -> None:
    places = np.array([0, -1], np.int32)
    own = Aligned(part="maths", places=places, teacher="a")
    samples = [replace(SAMPLE, sample_id=1, payload=own), replace(SAMPLE, sample_id=2, payload=own)]
    found = fetch_payloads(samples)
    assert {i: (p.part, p.places.tolist(), p.teacher) for i, p in found.items()} == {
        1: ("m1", [0, -1], "a"),
        2: ("m2", [0, -1], "a"),
    }
    assert fetched == ["maths"]
