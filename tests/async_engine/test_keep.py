"""Weight updates beneath requests that go on: each token is of one version, and its label names that one."""

from __future__ import annotations

import asyncio
import math

import pytest

from actors.engines.generator import Written
from actors.packed_messages import pack, unpack
from tests.async_engine.conftest import MakeRig
from tests.async_engine.driving import PROMPT, Rig, ended_by_itself, lengths, results, write_request
from tests.async_engine.tokens import check_output, check_written

LONG = 100  # tokens


@pytest.fixture
def keeping(make_rig: MakeRig) -> Rig:
    return make_rig(keep_in_flight=True)


def test_every_token_is_labelled_with_the_weights_that_computed_it(keeping: Rig) -> None:
    keeping.device.allow(12)
    futures = keeping.submit(*[keeping.request(LONG) for _ in range(8)])

    async def updates() -> None:
        for number in (1, 2, 3, 4):
            await keeping.update_in_flight(number, then=12 if number < 4 else math.inf)

    asyncio.run(updates())
    # Each time the twelve, and of the two batches in flight the one that was read. The other one's tokens are sampled again.
    expected = [version for version in (0, 1, 2, 3) for _ in range(13)]
    for output in results(futures):
        assert check_output(output) == expected + [4] * (LONG - len(expected))
    assert keeping.device.most_in_flight == 2


@pytest.mark.parametrize(("most", "ends_after"), [(2, 0), (LONG, 2)], ids=["by its length", "by itself"])
def test_a_last_token_in_flight_is_sampled_again_by_the_new_weights(keeping: Rig, most: int, ends_after: int) -> None:
    keeping.device.allow(0)
    futures = keeping.submit(keeping.request(most, ends_after=ends_after))
    asyncio.run(keeping.update_in_flight(1, then=math.inf))
    (output,) = results(futures)
    assert check_output(output) == [0, 1]
    assert ended_by_itself(output) == bool(ends_after)


def test_nothing_that_older_weights_cached_is_read_by_newer_ones(keeping: Rig) -> None:
    def cached_tokens() -> int:
        (output,) = results(keeping.submit(keeping.request(5)))
        check_output(output)  # a token from KV entries of other weights counts as mixed
        return int(output.num_cached_tokens)

    assert cached_tokens() == 0
    assert cached_tokens() == len(PROMPT) // 8 * 8, "while the weights stay, the prompt's whole blocks are used again"
    asyncio.run(keeping.update(1))
    assert cached_tokens() == 0


def test_an_update_amid_a_prompt_that_takes_several_batches(make_rig: MakeRig) -> None:
    rig = make_rig(keep_in_flight=True, options={"max_num_batched_tokens": 16, "max_num_seqs": 4})
    prompts = [range(10 * i, 10 * i + 90) for i in range(1, 5)]  # six batches each
    rig.device.allow(3)
    futures = rig.submit(*[rig.request(20, prompt=prompt) for prompt in prompts])

    async def updates() -> None:
        for number in range(1, 9):
            await rig.update_in_flight(number, then=number if number < 8 else math.inf)

    asyncio.run(updates())
    outputs = results(futures)
    assert lengths(outputs) == [20] * 4
    for output in outputs:
        check_output(output)


def test_updates_while_the_cache_is_too_small_for_all_that_run(make_rig: MakeRig) -> None:
    rig = make_rig(keep_in_flight=True, options={"blocks": 24})
    rig.device.allow(50)
    futures = rig.submit(*[rig.request(LONG, prompt=[i]) for i in range(8)])

    async def updates() -> None:
        await rig.until(rig.device.stuck)
        assert rig.core.model_executor.preempted > 0, "sequences made room for others"
        for number in range(1, 21):
            await rig.update_in_flight(number, then=5 if number < 20 else math.inf)

    asyncio.run(updates())
    outputs = results(futures)
    assert lengths(outputs) == [LONG] * 8
    for output in outputs:
        check_output(output)


def test_responses_say_the_weights_of_their_first_and_last_token(keeping: Rig) -> None:
    prompt_ids = [0, *PROMPT]
    requests = [write_request(index, prompt_ids, most) for index, most in enumerate([2, 15, LONG])]

    async def exchange() -> list[Written]:
        ended = unpack(await keeping.generator.exchange(pack(requests)))
        while len(ended) < len(requests):
            ended += unpack(await keeping.generator.exchange(pack([])))
        return ended

    async def go() -> list[Written]:
        keeping.device.allow(10)
        written = asyncio.create_task(exchange())
        await keeping.update_in_flight(1, then=10)
        await keeping.update_in_flight(2, then=math.inf)
        return await written

    versions = {each.sample_id: check_written(each) for each in asyncio.run(go())}
    assert versions == {0: [0] * 2, 1: [0] * 11 + [1] * 4, 2: [0] * 11 + [1] * 11 + [2] * 78}


def test_an_update_that_begins_anew_is_one_update(keeping: Rig) -> None:
    keeping.device.allow(10)
    futures = keeping.submit(keeping.request(LONG))

    async def go() -> None:
        await keeping.start_in_flight()
        await keeping.load(1, ["first"])
        await keeping.update(2)

    asyncio.run(go())
    (output,) = results(futures)
    assert check_output(output) == [0] * 11 + [2] * 89
