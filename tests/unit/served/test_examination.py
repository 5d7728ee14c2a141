"""Which servers are refused before a run, and what the user is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.served.client import check_servers
from tests.fakes.teacher_server import KEY, FakeServer, served
from tests.unit.served.conftest import spec_of


def check(*servers: FakeServer, **changes: Any) -> list[str]:
    async def go() -> list[str]:
        async with served(*servers):
            return await check_servers(spec_of(*servers, **changes))

    return asyncio.run(go())


@pytest.mark.parametrize("api", ["vllm", "sglang", "openai"])
@pytest.mark.parametrize("k", [0, 4])
def test_servers_of_the_right_model_may_teach(api: str, k: int) -> None:
    assert check(FakeServer(), FakeServer(), api=api, top_k=k) == []


@pytest.mark.parametrize(
    ("server", "changes", "text"),
    [
        (FakeServer(model="other"), {}, r"it serves 'other', not 'the-teacher'; set served_model"),
        (FakeServer(context=63), {}, r"sequences of up to 63 tokens, and prompt and response may have 64; .*max-model-len 64"),
        (FakeServer(shift=1), {}, r"its tokenizer is not the student's: 'The quick fox' is \["),
        (FakeServer(cuts_prompt=True), {}, r"it reads other token ids than those that are sent"),
        (FakeServer(most_k=3), {}, r"4 log-probabilities; at most 3; .* start the server with --max-logprobs 4 or more"),
        (FakeServer(raw=True), {}, r"some are above 0 or not finite; are they logits\?"),
        (FakeServer(noise=20.0), {}, r"have a probability of .* together, which is not possible|disagree"),
        (FakeServer(noise=0.5), {}, r"two requests for the same log-probabilities disagree"),
        (FakeServer(), {"temperature": 1.5}, r"those of raw logits, from which those at temperature 1.5 cannot be made"),
        (FakeServer(key=KEY), {}, r"it answers 401 to /v1/models: Incorrect API key:; see key_env"),
        (FakeServer(faults=["404"] * 99), {}, r"it answers 404 to /v1/completions: .*; is its api another than vllm\?"),
        (FakeServer(faults=["garbage"] * 99), {}, r"it does not answer as api vllm does: IndexError"),
        (FakeServer(faults=["nulls"] * 99), {}, r"it does not answer as api vllm does: AttributeError"),
        (FakeServer(faults=["301"] * 99), {}, r"it answers 301 .*; give the URL that it sends to"),
        (FakeServer(ids_as_texts=True), {"api": "openai"}, r"likeliest tokens by their texts, .* objective.type=sampled"),
    ],
)  # fmt: skip
def test_a_server_that_must_not_teach_is_refused_by_name(server: FakeServer, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=rf"teacher\.urls: http://localhost:\d+: .*{text}"):
        check(server, **changes)


def test_ids_as_texts_are_enough_for_the_sampled_tokens() -> None:
    assert check(FakeServer(ids_as_texts=True), api="openai", top_k=0) == []


def test_servers_with_different_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"differ by .* on average from those of the server before it"):
        check(FakeServer(), FakeServer(seed=1))


def test_a_server_that_is_away_is_told_of_while_another_answers() -> None:
    async def go() -> list[str]:
        gone = FakeServer()
        async with served(gone):
            pass
        async with served(FakeServer()) as (server,):
            return await check_servers(spec_of(gone, server))

    (note,) = asyncio.run(go())
    assert "does not answer now" in note


def test_no_server_at_all_is_refused() -> None:
    async def go() -> None:
        gone = FakeServer()
        async with served(gone):
            pass
        await check_servers(spec_of(gone))

    with pytest.raises(ConfigError, match=r"does not answer now: .*\nteacher.urls: no server answers"):
        asyncio.run(go())
