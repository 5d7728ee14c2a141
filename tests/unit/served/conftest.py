"""A served teacher's specification, and quick pauses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from renio_pipeline.served import client
from renio_pipeline.served.spec import ServedSpec
from renio_pipeline.types import ScoreRequest
from tests.fakes.teacher_server import MODEL, FakeServer, fake_ids

V = 40
TEXTS = ((1, 5, 9, 22, 3), (2, 7, 7, 30, 8, 11))
PROBES = ("The quick fox", "1234")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(client, "LONGEST_PAUSE", 0.1)


def spec_of(*servers: FakeServer, **changes: Any) -> ServedSpec:
    given = {
        "key": "teacher",
        "urls": tuple(server.url for server in servers),
        "api": "vllm",
        "model": MODEL,
        "vocab_size": V,
        "context": 64,
        "top_k": 4,
        "timeout": 20.0,
        "tolerance": 1e-3,
        "texts": TEXTS,
        "probes": tuple((text, tuple(fake_ids(text))) for text in PROBES),
    }
    return ServedSpec(**(given | changes))


def request_of(sample_id: int, tokens: int = 6) -> ScoreRequest:
    rng = np.random.default_rng(sample_id)
    prompt, response = rng.integers(1, V, 5).astype(np.int32), rng.integers(0, V, tokens).astype(np.int32)
    return ScoreRequest(sample_id=sample_id, prompt_ids=prompt, response_ids=response)
