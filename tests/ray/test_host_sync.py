"""Weights through the object store: receivers that die or hang are left out, and newcomers read the last copy.

The receivers are fakes where the engine is not the point. Real engines: ``test_sync.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray._private.internal_api import get_memory_info_reply, get_state_from_address
from transformers import AutoModelForCausalLM

from actors.engines.torch_teacher import TorchTeacher
from actors.weight_sync.background import on_thread
from actors.weight_sync.client import SyncClient
from actors.weight_sync.host_sender import AdapterSender, HostSender
from actors.weight_sync.receiver import HostReceiver
from actors.weight_sync.sender import TransferFailed
from renio_pipeline.models import info
from renio_pipeline.types import ScoreRequest, ScorerSpec, Version
from tests.fakes.receivers import FakeReceiver, Publisher
from tests.ray.conftest import kill
from tests.ray.test_sync import assert_soon_lost

SECONDS = 3.0  # that a receiver has
PAIRS = [(f"layer.{i}", torch.full((1000,), float(i))) for i in range(4)]
CHUNK_BYTES = 4000  # one of them each


class Source:
    """A weight source that counts what was taken from it."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for pair in PAIRS:
            self.taken += 1
            yield pair


def sender(receivers: Sequence[Any], source: Any = None, *, rank: int = 0, seconds: float = SECONDS) -> HostSender:
    client = SyncClient(receivers, [1] * len(receivers), seconds=seconds)
    return HostSender(source or Source(), client, rank=rank, chunk_bytes=CHUNK_BYTES)


def start_fakes(count: int) -> list[Any]:
    return [ray.remote(FakeReceiver).options(num_cpus=0.1).remote() for _ in range(count)]


@pytest.fixture(scope="module")
def others(ray_cluster: None) -> Any:
    """Two receivers that stay well."""
    made = start_fakes(2)
    ray.get([f.holds.remote() for f in made])
    yield made
    kill(made)


@pytest.fixture
def victim(ray_cluster: None) -> Any:
    (made,) = start_fakes(1)
    pid = ray.get(made.fail_at.remote("", ""))
    yield made
    kill([made])
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)  # Ray asks first, and a stopped process does not hear it


FAULTS = {
    ("update_weights", "kill"): "died: ",
    ("update_weights", "stop"): "did not answer update_weights in time",
    ("update_weights", "engine"): "its engine failed: its worker is gone",
    ("start_weight_update", "kill"): "died: ",
    ("finish_weight_update", "stop"): "did not answer finish_weight_update in time",
}


@pytest.mark.parametrize(("verb", "fault"), FAULTS)
def test_a_lost_receiver_is_named_and_the_others_have_it_all(others: list[Any], victim: Any, verb: str, fault: str) -> None:
    ray.get(victim.fail_at.remote(verb, fault))
    made = sender([others[0], victim, others[1]])
    started = time.monotonic()
    receipt = made.send(Version(0, 1))
    assert time.monotonic() - started < SECONDS + 2
    assert receipt.lost.keys() == {1}
    assert receipt.lost[1].startswith(FAULTS[verb, fault])
    assert_hold(others, "0.1")

    started = time.monotonic()
    receipt = made.send(Version(0, 2))  # it is not waited for again
    assert time.monotonic() - started < SECONDS
    assert receipt.lost.keys() == {1}
    assert_hold(others, "0.2")


@pytest.mark.parametrize("fault", ["kill", "stop"])
def test_a_lost_receiver_of_an_adapter_too(others: list[Any], victim: Any, fault: str) -> None:
    ray.get(victim.fail_at.remote("load_adapter", fault))
    client = SyncClient([victim, *others], [1, 1, 1], seconds=SECONDS)
    receipt = AdapterSender(Source(), client, rank=0).send(Version(0, 3))
    assert receipt.lost.keys() == {0}
    assert receipt.copy is not None
    assert (receipt.copy.kind, len(receipt.copy.chunks)) == ("adapter", 1)
    assert_hold(others, "0.3")


def assert_hold(receivers: Sequence[Any], version: str) -> None:
    held = ray.get([r.holds.remote() for r in receivers])
    assert held == [(version, {name: float(tensor[0]) for name, tensor in PAIRS})] * len(receivers)


def test_with_all_receivers_lost_every_rank_gathers_to_the_end_and_there_is_a_copy(victim: Any) -> None:
    ray.get(victim.fail_at.remote("update_weights", "kill"))
    sources = [Source(), Source()]
    receipts = [sender([victim], source, rank=rank).send(Version(0, 4)) for rank, source in enumerate(sources)]
    assert [s.taken for s in sources] == [len(PAIRS)] * 2
    assert receipts[0].lost.keys() == {0}
    assert receipts[0].copy is not None
    assert len(receipts[0].copy.chunks) == len(PAIRS)
    assert (receipts[1].lost, receipts[1].copy) == ({}, None)


def test_a_receiver_that_is_well_and_refuses_is_an_error_and_the_ranks_stay_in_step(others: list[Any], victim: Any) -> None:
    ray.get(victim.fail_at.remote("update_weights", "refuse"))
    source = Source()
    with pytest.raises(ValueError, match="wrong shape"):
        sender([victim, *others], source).send(Version(0, 5))
    assert source.taken == len(PAIRS)


def test_a_receivers_time_is_that_of_the_whole_round_and_its_own() -> None:
    class Slow:
        """Takes its time at every verb."""

        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def verb(self) -> float:
            time.sleep(self.seconds)
            return self.seconds

    def ask(engine: Any, verb: str) -> Any:
        return on_thread(getattr(engine, verb))

    client = SyncClient([Slow(0.4), Slow(0.0)], [1, 1], seconds=1.0, ask=ask)
    assert [client.call("verb") for _ in range(4)] == [[0.4, 0.0], [0.4, 0.0], [0.0], [0.0]]
    assert client.lost == {0: "did not answer verb in time"}
    time.sleep(1.0)  # the sender's own
    assert client.call("verb") == [0.0]


def test_a_failed_transfer_names_its_receivers_across_ray(ray_cluster: None) -> None:
    @ray.remote(num_cpus=0)
    def fail() -> None:
        raise TransferFailed({2: "died"})

    with pytest.raises(TransferFailed, match=r"receiver 2 died") as failed:
        ray.get(fail.remote())
    assert failed.value.lost == {2: "died"}


# Copies


def scorer_of(kind: str) -> ScorerSpec:
    model = info.resolve("embedded:student")
    return ScorerSpec(model=model, dtype="float32", temperature=1.3, vocab_size=30, kind=kind)


def test_a_newcomer_that_loads_the_copy_scores_as_a_teacher_that_was_sent_it(ray_cluster: None) -> None:
    lm = AutoModelForCausalLM.from_pretrained(info.resolve("embedded:student"), dtype=torch.float32)
    pairs = [(name, p.detach() + 0.05 * torch.randn_like(p)) for name, p in lm.named_parameters()]
    sent, newcomer = (TorchTeacher(scorer_of("sampled")) for _ in range(2))  # here: processes of their own are half a minute
    ids = np.arange(3, 15, dtype=np.int32)
    asked = [ScoreRequest(sample_id=0, prompt_ids=ids, response_ids=ids[::-1].copy())]

    def scores() -> list[np.ndarray]:
        return [t.score(asked)[0][0] for t in (sent, newcomer)]

    fresh, _ = scores()
    client = SyncClient([sent], [1], seconds=60, ask=lambda engine, verb, *args: on_thread(getattr(engine, verb), *args))
    receipt = HostSender(pairs, client, rank=0, chunk_bytes=CHUNK_BYTES).send(Version(0, 6))
    assert receipt.copy is not None
    synced, behind = scores()
    assert float(np.abs(synced - fresh).max()) > 0.01
    np.testing.assert_array_equal(behind, fresh)
    newcomer.load_copy(receipt.copy)
    np.testing.assert_array_equal(*scores())
    assert [t.weight_version() for t in (sent, newcomer)] == ["0.6", "0.6"]

    publisher = ray.remote(Publisher).options(num_cpus=0.1).remote()
    copy = ray.get(publisher.publish.remote(pairs))
    os.kill(ray.get(publisher.pid.remote()), signal.SIGKILL)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(publisher.pid.remote())
    assert_soon_lost(lambda: newcomer.load_copy(copy))


def test_the_memory_of_an_old_copy_is_free_once_nobody_holds_it(others: list[Any]) -> None:
    size = 2**26
    pairs = [("weights", torch.zeros(size, dtype=torch.uint8))]
    made = sender(others, pairs, seconds=60)
    before = object_store_bytes()
    held: Any = None
    for number in range(1, 6):
        held = made.send(Version(1, number)).copy
    assert held.version == Version(1, 5)
    until(lambda: object_store_bytes() - before < 1.5 * size)
    assert object_store_bytes() - before > 0.5 * size, "the newest copy is there for newcomers"
    held = None
    until(lambda: object_store_bytes() - before < 0.5 * size)


def object_store_bytes() -> int:
    reply = get_memory_info_reply(get_state_from_address(ray.get_runtime_context().gcs_address))
    used: int = reply.store_stats.object_store_bytes_used
    return used


def until(condition: Any, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.2)


def test_a_chunk_that_does_not_come_is_not_waited_for_for_ever() -> None:
    async def fetch() -> None:
        await HostReceiver(in_process=True).fetch({"ref": asyncio.Event().wait(), "seconds": 0.1})

    with pytest.raises(TimeoutError, match=r"a chunk of weights did not arrive within 0\.1 s"):
        asyncio.run(fetch())
