"""What each interface's answers become, against the table that the fake server has for a model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from renio_pipeline.served.client import Servers
from renio_pipeline.served.faults import UnusableAnswerError
from renio_pipeline.served.tables import NOTHING, table
from renio_pipeline.types import ContinuationRequest, ScoreRequest, TopK
from tests.fakes.teacher_server import FakeServer, served
from tests.unit.served.conftest import V, request_of, spec_of

APIS = pytest.mark.parametrize("api", ["vllm", "sglang", "openai"])
REQUESTS = [request_of(0), request_of(1, 1), request_of(2, 20)]


def scored(server: FakeServer, requests: Sequence[ScoreRequest], **changes: Any) -> list[TopK]:
    async def go() -> list[TopK]:
        async with served(server):
            servers = Servers(spec_of(server, **changes))
            await servers.open()
            try:
                assert servers.standing.up == 1, servers.standing
                return await asyncio.gather(*map(servers.score, requests))
            finally:
                await servers.close()

    return asyncio.run(go())


def expected(server: FakeServer, request: ScoreRequest, temperature: float = 1.0) -> np.ndarray:
    """[T, V]"""
    ids = [*request.prompt_ids.tolist(), *request.response_ids.tolist()]
    return server.expected(ids, temperature)[-len(request.response_ids) :]


@APIS
@pytest.mark.parametrize("k", [0, 1, 4])
def test_log_probabilities_and_the_top_k_are_those_of_the_model(api: str, k: int) -> None:
    server = FakeServer()
    for request, found in zip(REQUESTS, scored(server, REQUESTS, api=api, top_k=k), strict=True):
        wanted = expected(server, request)
        np.testing.assert_array_equal(found.token_ids[:, 0], request.response_ids)
        np.testing.assert_array_equal(found.token_ids[:, 1:], np.argsort(-wanted, axis=1, kind="stable")[:, :k])
        np.testing.assert_allclose(found.logprobs, np.take_along_axis(wanted, found.token_ids.astype(int), 1), atol=1e-6)
        assert found.token_ids.dtype == np.int32
        assert found.logprobs.dtype == np.float32


@APIS
def test_a_server_that_divides_its_logits_is_asked_at_the_distillation_temperature(api: str) -> None:
    server = FakeServer(scales=True)
    (found,) = scored(server, REQUESTS[:1], api=api, temperature=1.7)
    wanted = np.take_along_axis(expected(server, REQUESTS[0], 1.7), found.token_ids.astype(int), 1)
    np.testing.assert_allclose(found.logprobs, wanted, atol=1e-6)


@APIS
def test_an_empty_response_is_not_sent(api: str) -> None:
    server = FakeServer()
    (found,) = scored(server, [request_of(0, 0)], api=api)
    assert found.token_ids.shape == found.logprobs.shape == (0, 5)
    assert all(len(ids) != 5 or ids[0] == 1 for ids in server.asked), "the texts of the examination alone"


def test_end_tokens_change_places_on_the_way_there_and_back() -> None:
    server = FakeServer()
    request = ScoreRequest(sample_id=0, prompt_ids=np.array([4, 9]), response_ids=np.array([3, 8, 2], np.int32))
    (found,) = scored(server, [request], end_tokens=((2, 30),))
    assert [4, 9, 3, 8, 30] in server.asked
    wanted = server.expected([4, 9, 3, 8, 30])[-3:]
    order = np.arange(V)
    order[[2, 30]] = 30, 2
    np.testing.assert_array_equal(found.token_ids[:, 0], request.response_ids)
    np.testing.assert_array_equal(found.token_ids[:, 1:], order[np.argsort(-wanted, axis=1)[:, :4]])


def test_tokens_beyond_the_students_vocabulary_leave_their_mass_to_the_tail() -> None:
    """The server's model has 10 output rows more; the student reads ids below V alone."""
    server = FakeServer(rows=V + 10, seed=3)
    (found,) = scored(server, [request_of(5, 30)], top_k=8)
    wanted = expected(server, request_of(5, 30))
    assert (np.argsort(-wanted, axis=1)[:, :8] >= V).any(), "the case does not occur"
    assert found.token_ids.max() < V
    for row, best in enumerate(np.argsort(-wanted, axis=1)[:, :8]):
        known = [i for i in best if i < V]
        assert found.token_ids[row, 1 : 1 + len(known)].tolist() == known
        assert (found.logprobs[row, 1 + len(known) :] == NOTHING).all()
        columns = found.token_ids[row, 1:].tolist()
        assert len(set(columns)) == 8, "no token counts twice"
        assert found.token_ids[row, 0] not in columns[len(known) :], "the sampled token counts by itself"


def test_too_few_entries_are_no_answer() -> None:
    with pytest.raises(UnusableAnswerError, match="1 of the 2 likeliest tokens were returned"):
        table([(3, -1.0)], [[(3, -1.0)]], 2, V)


@pytest.mark.parametrize("api", ["vllm", "sglang"])
def test_a_text_is_written_after_a_prompt(api: str) -> None:
    async def go() -> list[int]:
        async with served(FakeServer()) as (server,):
            servers = Servers(spec_of(server, api=api))
            await servers.open()
            asked = ContinuationRequest(prompt_ids=np.array([4, 9]), max_tokens=5, seed=0, temperature=0.0)
            found = await servers.write(asked)
            await servers.close()
            assert found.stop_reason == "length"
            ids = [4, 9, *found.token_ids.tolist()]
            best = server.expected(ids).argmax(axis=1)
            assert best[1:].tolist() == ids[2:]
            return found.token_ids.tolist()

    assert len(asyncio.run(go())) == 5
