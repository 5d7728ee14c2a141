"""What a teacher's pool takes of ``payload.max_bytes`` for a response, as ``start_teachers`` makes it. Nothing is started."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from actors import launch
from actors.pools.jobs import Service
from actors.pools.result_queue import ResultQueue
from actors.pools.worker import Kind
from renio_pipeline.data.other_tokenizers import ROOM
from renio_pipeline.preflight.payload import payload_token_bytes
from renio_pipeline.run_dir.quarantine import QuarantineLog
from renio_pipeline.types import Prompt, Rollout, Row, Version
from tests.unit.conftest import make_config

LONGEST, K = 10, 3
TOKEN_BYTES = (K + 1) * 8  # an id and a log-probability each
OWN = {"teacher": {"model": "embedded:teacher", "tokenizer": "own"}, "objective": {"type": "uld", "k": K}}
SAME = {"objective": {"type": "top_k_forward_kl", "k": K}}


@pytest.mark.parametrize(
    ("changes", "tokens"), [(SAME, LONGEST), (OWN, LONGEST), (OWN, ROOM * LONGEST)], ids=["same", "own", "own, longest"]
)
def test_a_response_takes_the_bytes_of_the_tokens_that_its_teacher_reads(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], tokens: int
) -> None:
    config = make_config(batch_size=1, max_response_tokens=LONGEST, **changes)
    prepared: Any = SimpleNamespace(
        payload_token_bytes={"": payload_token_bytes(config, "", 0)}, sizes_of=lambda name: SimpleNamespace(vocab_size=50)
    )
    monkeypatch.setattr(
        launch, "teacher_kind", lambda *_: Kind(name="teacher", start=lambda slot: pytest.fail("a worker starts"))
    )
    monkeypatch.setattr(launch, "Probe", lambda *_: SimpleNamespace(check=None))
    ids = np.zeros(tokens, np.int32)
    prompt = Prompt(sample_id=0, row=Row(id="a", problem=""), student_ids=ids[:1], teacher_ids=ids[:1])
    rollout = Rollout(
        prompt=prompt, token_ids=ids, logprobs=np.zeros(tokens, np.float32), stop_reason="stop", version=Version(0, 0)
    )

    async def submitted() -> int:
        service = Service(config=config, quarantine=QuarantineLog(None, lambda text: None))
        pool = launch.start_teachers(service, prepared, launch.payload_budget(config, prepared))[""]
        return pool._submit(rollout, 1, ResultQueue(asyncio.Future())).payload_bytes

    assert asyncio.run(submitted()) == tokens * TOKEN_BYTES
    assert tokens * TOKEN_BYTES <= LONGEST * prepared.payload_token_bytes[""], "more than a sample's share of the budget"
