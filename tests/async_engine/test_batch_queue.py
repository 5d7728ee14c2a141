"""``EngineLoop`` with batches in the engine's queue: hold, release, mark_weights_invalid, cancel_all and sleep."""

from __future__ import annotations

import math
import threading

import pytest

from actors.engines.loop import reset_cache
from actors.errors import EngineFailed
from renio_pipeline.types import Version
from tests.async_engine.device import DEADLINE
from tests.async_engine.driving import Rig, ended_by_itself, lengths, results
from tests.async_engine.tokens import check_output


def in_flight(rig: Rig, *tokens: int) -> list:
    """Requests of so many tokens, with two batches on a device that finishes neither."""
    rig.device.allow(0)
    futures = rig.submit(*map(rig.request, tokens))
    rig.device.until(rig.device.stuck)
    return futures


def test_two_batches_are_in_flight_at_once_and_every_token_arrives(rig: Rig) -> None:
    futures = in_flight(rig, 30, 30, 20)
    assert (rig.device.launched, rig.device.finished) == (2, 0)
    rig.device.allow(math.inf)
    outputs = results(futures)
    assert lengths(outputs) == [30, 30, 20]
    assert {version for output in outputs for version in check_output(output)} == {0}
    assert rig.device.most_in_flight == 2


def test_hold_waits_for_the_device_and_no_batch_is_launched_until_release(rig: Rig) -> None:
    futures = in_flight(rig, 30)
    held = rig.loop.hold()
    rig.device.allow(1)  # the engine's step returns with the first batch; the second one is half done
    rig.device.until(lambda: rig.device.waits == 1)
    assert not held.done()
    assert rig.unread == 1
    rig.device.allow(math.inf)
    held.result(DEADLINE)
    assert rig.device.launched == rig.device.finished == 2
    futures += rig.submit(rig.request(5))
    for _ in range(20):
        rig.commands_run()
    assert rig.device.launched == 2
    assert rig.unread == 1, "the tokens of the second batch wait until the engine goes on"
    rig.loop.release().result(DEADLINE)
    outputs = results(futures)
    assert lengths(outputs) == [30, 5]
    for output in outputs:
        check_output(output)


def test_release_goes_on_from_the_batch_that_was_in_flight(rig: Rig) -> None:
    futures = in_flight(rig, 30)
    held = rig.loop.hold()
    rig.device.allow(math.inf)
    held.result(DEADLINE)
    rig.loop.release().result(DEADLINE)
    (output,) = results(futures)
    assert check_output(output) == [0] * 30
    assert rig.device.launched == 30, "one batch for each token: nothing was computed twice"


def test_invalid_weights_fail_all_under_way_and_nothing_is_sampled_until_they_are_complete(rig: Rig) -> None:
    futures = in_flight(rig, 30, 30)
    held = rig.loop.hold()
    rig.device.allow(math.inf)
    held.result(DEADLINE)
    rig.device.weights[0] = 1
    rig.loop.mark_weights_invalid(OSError("no chunk")).result(DEADLINE)
    for future in [*futures, *rig.submit(rig.request(5))]:
        with pytest.raises(EngineFailed, match="a weight update failed half way: OSError: no chunk"):
            future.result(DEADLINE)
    for _ in range(20):
        rig.commands_run()
    assert rig.device.launched == 2
    assert rig.unread == 1

    rig.loop.hold().result(DEADLINE)
    rig.device.weights[1] = 1
    rig.loop.call(reset_cache, held=True).result(DEADLINE)
    rig.loop.call(lambda engine: engine.set_weight_version(str(Version(0, 1))), held=True).result(DEADLINE)
    rig.loop.release().result(DEADLINE)
    (output,) = results(rig.submit(rig.request(5)))
    assert check_output(output) == [1] * 5, "the stale batch added nothing"


def test_cancel_all_fails_the_earlier_requests_alone(rig: Rig) -> None:
    for tokens in range(3, 23):
        cancelled = in_flight(rig, tokens, 40)
        rig.loop.cancel_all()
        later = rig.submit(rig.request(tokens), rig.request(7))
        rig.device.allow(math.inf)
        for future in cancelled:
            with pytest.raises(RuntimeError, match="the request was cancelled"):
                future.result(DEADLINE)
        outputs = results(later)
        assert lengths(outputs) == [tokens, 7]
        assert not rig.core.scheduler.requests, "the engine computes for nobody"
        for output in outputs:
            check_output(output)
        rig.device.until(lambda: rig.device.launched == rig.device.finished)


def test_it_does_not_fall_asleep_over_batches_in_flight(rig: Rig) -> None:
    futures = in_flight(rig, 30)
    refused = rig.loop.sleep(free_memory=True)
    rig.device.allow(math.inf)
    with pytest.raises(RuntimeError, match="idle, but 1 requests are under way"):
        refused.result(DEADLINE)
    (output,) = results(futures)
    assert check_output(output) == [0] * 30


def test_it_sleeps_and_wakes_with_an_unread_batch_in_the_queue(rig: Rig) -> None:
    rig.device.allow(3)  # the fourth batch was launched before the third one's token said that the response ends
    (output,) = results(rig.submit(rig.request(30, ends_after=3)))
    assert ended_by_itself(output)
    assert check_output(output) == [0] * 3
    asleep = rig.loop.sleep(free_memory=True)
    rig.device.until(lambda: rig.device.waits == 1)
    assert (rig.device.launched, rig.device.finished, rig.unread) == (4, 3, 1)
    assert not rig.device.asleep, "the memory is in use"
    rig.device.allow(math.inf)
    asleep.result(DEADLINE)
    assert rig.device.asleep
    assert rig.unread == 1
    with pytest.raises(RuntimeError, match="the engine sleeps"):
        rig.submit(rig.request(5))[0].result(DEADLINE)
    rig.loop.wake_up(free_memory=True).result(DEADLINE)
    outputs = results(rig.submit(rig.request(5), rig.request(30, ends_after=3)))
    assert [check_output(output) for output in outputs] == [[0] * 5, [0] * 3]


def test_a_fault_of_the_device_fails_all_under_way_and_all_that_comes(rig: Rig) -> None:
    futures = in_flight(rig, 30, 30)
    rig.device.broken = RuntimeError("illegal memory access")
    rig.device.allow(math.inf)
    for future in futures:
        with pytest.raises(EngineFailed, match="the engine failed: RuntimeError: illegal memory access"):
            future.result(DEADLINE)
    for future in (rig.loop.hold(), *rig.submit(rig.request(5))):
        with pytest.raises(EngineFailed, match="illegal memory access"):
            future.result(DEADLINE)


def test_a_hold_that_fails_leaves_no_request_waiting(rig: Rig) -> None:
    rig.device.broken = RuntimeError("illegal memory access")
    posted = threading.Event()
    rig.loop.call(lambda engine: posted.wait(DEADLINE))
    (future,) = rig.submit(rig.request(5))  # it has no batch yet when the hold fails
    held = rig.loop.hold()
    posted.set()
    with pytest.raises(RuntimeError, match="illegal memory access"):
        held.result(DEADLINE)
    with pytest.raises(EngineFailed, match="the engine failed: RuntimeError: illegal memory access"):
        future.result(30)
