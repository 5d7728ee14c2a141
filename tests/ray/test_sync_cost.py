"""A sync through the object store copies the weights once, however many receivers its node has. CPU-seconds, least of a few.

The bounds are wide, because other processes disturb them; `make bench` has the figures.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray
import torch

from actors.weight_sync.chunked_arrays import join_arrays
from actors.weight_sync.client import SyncClient
from actors.weight_sync.host_sender import HostSender
from actors.weight_sync.wire import put
from renio_pipeline.types import Version
from tests.ray.conftest import kill
from tests.ray.reading_receiver import ReadingReceiver, checksum

ROUNDS = 12  # the first ones write memory that the store has not used before, and any may be disturbed: the least counts
SIZE = 256 * 2**20
CHUNK_BYTES = 64 * 2**20


@pytest.fixture(scope="module")
def weights() -> torch.Tensor:
    return torch.arange(SIZE // 4, dtype=torch.float32)


@pytest.fixture(scope="module")
def receivers(ray_cluster: None) -> Iterator[list[Any]]:
    made = [ray.remote(ReadingReceiver).options(num_cpus=0.1).remote() for _ in range(3)]
    ray.get([r.start_weight_update.remote() for r in made])
    yield made
    kill(made)


def test_tensors_are_copied_once_and_every_receiver_reads_that_copy_in_place(
    weights: torch.Tensor, receivers: list[Any]
) -> None:
    layers = [(f"layers.{i}.weight", part) for i, part in enumerate(weights.view(-1, 2**20))]
    client = SyncClient(receivers, [1] * len(receivers), seconds=60)
    sender = HostSender(layers, client, rank=0, chunk_bytes=CHUNK_BYTES)
    held = torch.zeros_like(weights).numpy()
    memcpy, publish, receive = [], [], []
    for number in range(ROUNDS):
        weights.add_(1)  # what a receiver kept would be seen
        memcpy.append(cpu_seconds(lambda: np.copyto(held, weights.numpy())))
        publish.append(cpu_seconds(lambda number=number: sender.send(Version(0, number))))  # type: ignore[misc]
        readings = ray.get([r.reading.remote() for r in receivers])
        receive.append(sorted(r.receive_cpu for r in readings))
        assert {r.checksum for r in readings} == {checksum([weights.numpy().view(np.uint8)])}
        assert all(r.shared for r in readings), "a receiver's arrays are not the store's memory"
        assert max(r.private_bytes for r in readings) < SIZE / 20, "a receiver made a copy"
    assert min(publish) < 3 * min(memcpy), "more than a copy into the store: a second one, or a pass over fresh memory"
    # A copy into fresh memory costs more than one over memory that is there; mapping the store's pages costs up to 0.7 of that.
    assert min(map(max, receive)) < min(memcpy), "a receiver works as if it copied"


def test_an_array_in_pieces_keeps_its_memory_when_all_else_of_it_is_forgotten(ray_cluster: None) -> None:
    update = put({"arrays": [np.random.default_rng(0).integers(0, 256, 2**22, np.uint8)]})
    (array,) = join_arrays(ray.get(update["ref"]), update["pieces"])
    before = array.copy()
    del update
    gc.collect()
    time.sleep(1.5)  # Ray frees what nobody holds once a second
    others = [ray.put(np.full(2**22, i, np.uint8)) for i in range(20)]
    np.testing.assert_array_equal(array, before)
    del others


def test_a_cast_is_written_once_and_reads_as_torch_casts(weights: torch.Tensor, receivers: list[Any]) -> None:
    part = weights[: 2**24].sin()
    sender = HostSender([("weight", part)], SyncClient(receivers[:1], [1], seconds=60), rank=0, dtype=torch.bfloat16)
    sender.send(Version(1, 0))
    reading = ray.get(receivers[0].reading.remote())
    expected = part.to(torch.bfloat16).view(torch.uint8).numpy()
    assert (reading.bytes, reading.checksum) == (len(expected), checksum([expected]))


def cpu_seconds(work: Any) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before
