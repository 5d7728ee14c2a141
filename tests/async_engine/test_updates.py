"""The replica's verbs with a batch in the engine's queue: updates that drain, fail or are given up, and sleep."""

from __future__ import annotations

import asyncio
import math

import pytest

from actors.errors import EngineFailed
from tests.async_engine.conftest import MakeRig
from tests.async_engine.driving import Rig, results
from tests.async_engine.tokens import check_output

LONG = 100  # tokens


def test_drain_an_unread_batch_of_an_ended_response_does_not_hinder_an_update(rig: Rig) -> None:
    for number in range(1, 20):
        (output,) = results(rig.submit(rig.request(LONG, ends_after=3)))
        assert check_output(output) == [number - 1] * 3
        assert rig.unread == 1
        asyncio.run(rig.update(number))
    assert rig.core.model_executor.preempted == 0


def test_drain_an_update_over_requests_under_way_is_an_error_and_a_later_one_helps(rig: Rig) -> None:
    rig.device.allow(5)
    futures = rig.submit(rig.request(LONG), rig.request(LONG))

    async def go() -> None:
        with pytest.raises(RuntimeError, match="vLLM kept its prefix cache"):
            await rig.update_in_flight(1, then=math.inf)
        for future in [*futures, *rig.submit(rig.request(5))]:
            with pytest.raises(EngineFailed, match="a weight update failed half way"):
                await asyncio.wrap_future(future)
        await rig.update(2)
        assert rig.device.launched == 7, "since the update that failed, nothing was sampled"
        (output,) = await rig.outputs(rig.request(5))
        assert check_output(output) == [2] * 5

    asyncio.run(go())


@pytest.mark.parametrize("end", ["abort", "cancel_all", "finish"])
@pytest.mark.parametrize("keep", [True, False], ids=["keep", "drain"])
def test_half_an_update_serves_nobody_until_a_whole_one(make_rig: MakeRig, keep: bool, end: str) -> None:
    rig = make_rig(keep_in_flight=keep)
    rig.device.allow(5)
    futures = rig.submit(rig.request(LONG), rig.request(LONG))

    async def go() -> None:
        await rig.start_in_flight()
        await rig.load(100, ["first"])
        if end == "abort":
            await rig.generator.abort_weight_update()
        elif end == "cancel_all":
            await rig.generator.cancel_all()
        else:
            with pytest.raises(RuntimeError, match="did not reach 1 layers"):
                await rig.finish(100)
        for future in [*futures, *rig.submit(rig.request(5))]:
            with pytest.raises(EngineFailed, match="a weight update failed half way"):
                await asyncio.wrap_future(future)
        await rig.update(1)
        assert rig.device.launched == 7
        (output,) = await rig.outputs(rig.request(5))
        assert check_output(output) == [1] * 5

    asyncio.run(go())


def test_a_replica_on_a_gpu_sleeps_and_wakes_with_its_weights_and_an_empty_cache(make_rig: MakeRig) -> None:
    rig = make_rig(on_gpu=True, sleeps=True)

    async def go() -> None:
        for number in (1, 2, 3):
            await rig.update(number)
            (output,) = await rig.outputs(rig.request(LONG, ends_after=3))
            assert check_output(output) == [number] * 3
            assert rig.unread == 1
            await rig.generator.sleep()
            assert rig.device.asleep
            with pytest.raises(RuntimeError, match="the engine sleeps"):
                await rig.generator.start_weight_update()
            await rig.generator.wake_up()
            (output,) = await rig.outputs(rig.request(5))
            assert check_output(output) == [number] * 5

    asyncio.run(go())


def test_an_update_that_is_cancelled_while_it_waits_for_the_device_leaves_nobody_waiting(make_rig: MakeRig) -> None:
    rig = make_rig(keep_in_flight=True)
    rig.device.allow(5)
    (future,) = rig.submit(rig.request(LONG))

    async def go() -> None:
        starting = await rig.starting_in_flight()
        rig.device.allow(1)
        await rig.until(lambda: rig.device.waits == 1)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        rig.device.allow(math.inf)
        with pytest.raises(EngineFailed, match="a weight update failed half way: CancelledError"):
            await asyncio.wait_for(asyncio.wrap_future(future), 30)
        await rig.update(2)
        (output,) = await rig.outputs(rig.request(5))
        assert check_output(output) == [2] * 5

    asyncio.run(go())
