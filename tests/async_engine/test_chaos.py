"""Whatever comes together: no token of mixed weights, none with another version's label, no request lost."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.async_engine.chaos import Chaos
from tests.async_engine.conftest import MakeRig

ACTIONS = 40
CROWDED = {"blocks": 24, "max_num_seqs": 8, "max_num_batched_tokens": 32}  # prompts in parts, and sequences that must make room


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("keep", [True, False], ids=["keep", "drain"])
def test_at_random_times_every_request_ends_once_and_as_it_must(make_rig: MakeRig, keep: bool, seed: int) -> None:
    rig = make_rig(keep_in_flight=keep, on_gpu=True, sleeps=True, options=CROWDED)

    async def go() -> Counter[str]:
        chaos = Chaos(rig, seed, keep=keep)
        await chaos.run(ACTIONS)
        return chaos.outcomes()

    outcomes = asyncio.run(go())
    assert outcomes["answered"] > 10
    assert rig.core.model_executor.preempted > 0
    assert rig.device.most_in_flight == 2
    assert not rig.loop._under_way
    assert not rig.core.scheduler.requests
    assert not rig.engine.output_processor.request_states
