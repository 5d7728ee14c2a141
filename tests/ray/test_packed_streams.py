"""The packed transfer reads no tensor before it is made, whichever stream makes it; and its memory is what was asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from actors.trainer.weight_source import DeepSpeedSource
from actors.weight_sync.client import SyncClient
from actors.weight_sync.factory import PACKED_BYTES, largest_tensor, make_sender
from tests.ray.stream_checker import Communicator, Stream, Streams, UnorderedReadError

BYTES = 300  # of a buffer: a layer below has 544 in bfloat16, so that buffers end in the middle of layers


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = [torch.nn.ModuleDict({name: torch.nn.Linear(8, 16) for name in ("up", "gate")}) for _ in range(4)]
    return torch.nn.ModuleDict({"layers": torch.nn.ModuleList(layers)})


def info_of(source: Any, **options: Any) -> Any:
    """What our sender tells vLLM's trainer engine."""
    sender: Any = make_sender(options.pop("backend", "nccl"), source, SyncClient([], [], seconds=1), rank=0, **options)
    return sender._info


def broadcast(source: Any, buffer_bytes: int, buffers: int, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """vLLM's own producer, over streams that are checked."""
    from vllm.distributed.weight_transfer import packed_tensor

    streams = Streams(buffers)
    group = Communicator(streams)
    monkeypatch.setattr(packed_tensor, "_get_streams", lambda device, count: tuple(streams.all[:count]))
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: streams.current(stream))
    with streams:
        packed_tensor.packed_nccl_broadcast_producer(
            iterator=iter(source),
            group=group,
            src=0,
            post_iter_func=lambda item: item[1],
            buffer_size_bytes=buffer_bytes,
            num_buffers=buffers,
        )
    return group.sent


def test_what_our_sender_asks_for_reads_nothing_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    source = DeepSpeedSource(model(), dtype=torch.bfloat16)
    info = info_of(source, packed_bytes=BYTES)
    sent = broadcast(source, info.packed_buffer_size_bytes, info.packed_num_buffers, monkeypatch)
    assert len(sent) > 4
    whole = b"".join(tensor.view(torch.uint8).numpy().tobytes() for _, tensor in source)
    assert b"".join(sent) == whole


def test_vllms_own_two_buffers_read_the_rest_of_a_layer_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why there is one: a layer is cast as a whole on the stream of one buffer, and its rest is packed on the other's."""
    with pytest.raises(UnorderedReadError, match="made on stream 0, read on 1 without a wait"):
        broadcast(DeepSpeedSource(model(), dtype=torch.bfloat16), BYTES, 2, monkeypatch)


def test_a_wait_makes_a_read_from_another_stream_good() -> None:
    streams = Streams(2)
    first, second = streams.all
    with streams:
        with streams.current(first):
            made = torch.ones(3) * 2
        with streams.current(second), pytest.raises(UnorderedReadError):
            made + 1
        first.synchronize()
        with streams.current(second):
            assert (made + 1).tolist() == [3, 3, 3]
    assert isinstance(first, Stream)


@pytest.mark.parametrize("backend", ["nccl", "ipc"])
def test_a_transfers_memory_is_bounded(backend: str) -> None:
    source = DeepSpeedSource(model(), dtype=torch.bfloat16)
    info = info_of(source, backend=backend)
    assert (info.packed, info.packed_buffer_size_bytes) == (True, PACKED_BYTES)
    assert info_of(source, backend=backend, packed_bytes=12345).packed_buffer_size_bytes == 12345
    assert largest_tensor(source) == 8 * 16 * 2


def test_a_tensor_larger_than_the_buffer_widens_that_of_ipc(monkeypatch: pytest.MonkeyPatch) -> None:
    from actors.weight_sync import factory

    monkeypatch.setattr(factory, "PACKED_BYTES", 100)
    source = DeepSpeedSource(model(), dtype=torch.bfloat16)
    assert info_of(source, backend="ipc").packed_buffer_size_bytes == 8 * 16 * 2
    assert info_of(source, backend="nccl").packed_buffer_size_bytes == 100
