"""vLLM's packed weight transfer between two processes on one GPU, for many rounds, with a checksum of every tensor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.gpu import models
from tests.gpu.check import Figure, Figures
from tests.gpu.cuda_ipc import CudaIpc, Piped
from tests.gpu.memory import gib, peak
from tests.gpu.settings import Settings

LAYERS = 8  # of the weights that are sent; a layer's tensors are made together, as ZeRO 3 gathers them
SECONDS = 300.0


@dataclass(frozen=True)
class Wire:
    buffer_bytes: int
    buffers: int


def packed(settings: Settings) -> Figures:
    """With the buffers that the pipeline asks for, which must be exact; and with two, on two streams, for the record."""
    models.environment(settings)
    wire = _pipelines_wire(settings)
    yield Figure("buffers", wire.buffers)
    yield Figure("bytes of each", gib(wire.buffer_bytes), "GiB")
    wrong, seconds, extra = _transfer(settings, wire)
    yield Figure(f"wrong tensors in {settings.rounds} rounds", wrong, most=0)
    yield Figure("time of a round", seconds / settings.rounds * 1e3, "ms")
    if extra is not None:
        bound = wire.buffers * (wire.buffer_bytes + _largest(settings)) + 8 * _largest(settings)  # checksums are of int64
        yield Figure("receiver's peak memory", gib(extra), "GiB", most=gib(bound))
    wrong, _, extra = _transfer(settings, Wire(settings.buffer_bytes, 2))
    yield Figure("wrong tensors with two buffers", wrong)
    if extra is not None:
        yield Figure("receiver's peak memory with two buffers", gib(extra), "GiB")


def _pipelines_wire(settings: Settings) -> Wire:
    """The geometry in what the pipeline gives vLLM's trainer engine; vLLM's own where it says nothing."""
    from actors.weight_sync.client import SyncClient
    from actors.weight_sync.factory import make_sender

    sender: Any = make_sender("nccl", _NoSource(), SyncClient([], [], seconds=1), rank=0, address="127.0.0.1", port=1)
    info = sender._info
    size = info.packed_buffer_size_bytes if settings.on_gpu else settings.buffer_bytes
    return Wire(size, info.packed_num_buffers)


class _NoSource:
    def metadata(self) -> list[Any]:
        return []


def _shapes(settings: Settings) -> list[tuple[str, tuple[int, int]]]:
    s = settings.main
    layer = [("up", (s.intermediate, s.hidden)), ("down", (s.hidden, s.intermediate)), ("q", (s.heads * s.head_dim, s.hidden))]
    return [("embed", (settings.rows, s.hidden)), *((f"{i}.{name}", shape) for i in range(LAYERS) for name, shape in layer)]


def _largest(settings: Settings) -> int:
    return max(2 * rows * columns for _, (rows, columns) in _shapes(settings))


def _weights(settings: Settings, round: int, sums: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A round's tensors, layer by layer, each layer freed before the next; their checksums go to `sums`.

    Nothing here waits for the GPU: whoever reads a tensor on another stream than the one it is made on must wait itself.
    """
    import torch

    generator = torch.Generator(settings.device).manual_seed(round)
    shapes = _shapes(settings)
    for start in range(0, len(shapes), 4):
        made = []
        for name, shape in shapes[start : start + 4]:
            tensor = torch.randn(shape, generator=generator, device=settings.device, dtype=torch.bfloat16)
            sums[name] = _checksum(tensor)
            made.append((name, tensor.clone()))  # as a gather does: memory that is free again soon
        yield from made


def _checksum(tensor: Any) -> Any:
    """Of bits and places: a scalar that the current stream computes."""
    import torch

    bits = tensor.view(-1).view(torch.int16).long()
    places = torch.arange(len(bits), device=bits.device) % 65521 + 1
    return (bits * places).sum()


def _settled(settings: Settings, sums: dict[str, Any]) -> dict[str, int]:
    """Checksums once every stream has ended."""
    import torch

    if settings.on_gpu:
        torch.cuda.synchronize()
    return {name: int(total) for name, total in sums.items()}


def _transfer(settings: Settings, wire: Wire) -> tuple[int, float, int | None]:
    """Wrong tensors of all rounds, seconds, and bytes at most that the receiver held beyond the start."""
    import torch.multiprocessing as mp
    from vllm.distributed.weight_transfer.packed_tensor import packed_nccl_broadcast_producer

    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    answers = context.Queue()
    receiver = context.Process(target=_receive, args=(settings, wire, theirs, answers), daemon=True)
    receiver.start()
    try:
        group = _communicator(settings, 0, ours, wire)
        sent: list[dict[str, int]] = []
        started = time.perf_counter()
        for round in range(settings.rounds):
            sums: dict[str, Any] = {}
            packed_nccl_broadcast_producer(
                _weights(settings, round, sums), group, 0, lambda item: item[1], wire.buffer_bytes, wire.buffers
            )
            sent.append(_settled(settings, sums))
        got, extra = answers.get(timeout=SECONDS)
        seconds = time.perf_counter() - started
        receiver.join(30)
    finally:
        if receiver.is_alive():
            receiver.kill()
    assert len(got) == settings.rounds
    wrong = sum(sums[name] != found.get(name) for sums, found in zip(sent, got, strict=True) for name in sums)
    return wrong, seconds, extra


def _receive(settings: Settings, wire: Wire, pipe: Any, answers: Any) -> None:
    """The other process."""
    models.environment(settings)
    import torch
    from vllm.distributed.weight_transfer.packed_tensor import packed_nccl_broadcast_consumer

    group, got = _communicator(settings, 1, pipe, wire), []
    layout = [(name, (list(shape), torch.bfloat16)) for name, shape in _shapes(settings)]
    with peak(settings) as used:
        for _ in range(settings.rounds):
            sums: dict[str, Any] = {}
            packed_nccl_broadcast_consumer(
                iter(layout),
                group,
                0,
                lambda pairs, sums=sums: sums.update((n, _checksum(t)) for n, t in pairs),  # type: ignore[misc]
                wire.buffer_bytes,
                wire.buffers,
                settings.device,
            )
            got.append(_settled(settings, sums))
    answers.put((got, used.extra))


def _communicator(settings: Settings, rank: int, pipe: Any, wire: Wire) -> Any:
    if settings.on_gpu:
        return CudaIpc(rank, pipe, wire.buffer_bytes + _largest(settings))
    from tests.ray import gloo_communicator

    gloo_communicator.install()  # nothing in the place of CUDA's streams
    return Piped(rank, pipe)
