"""Senders of weights and of LoRA adapters through the object store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from actors.weight_sync.client import Call, SyncClient
from actors.weight_sync.sender import HostCopy, Sender, SyncReceipt, exhaust, no_part
from actors.weight_sync.wire import Scratch, pack_chunks, put, size_of
from renio_pipeline.types import Version

if TYPE_CHECKING:
    import torch

CHUNK_BYTES = 256 * 2**20


class HostSender(Sender):
    """Writes the weights to the object store once; all generators of a node read the same copy in place.

    While the receivers load one chunk, the next one is written.

    Args:
        dtype: the receivers' dtype. Tensors are cast as they are written; None: not at all.
        chunk_bytes: about the size of one chunk.
    """

    def __init__(
        self, source: Any, client: SyncClient, *, rank: int, dtype: torch.dtype | None = None, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        self._source, self._client, self._rank, self._dtype, self._chunk_bytes = source, client, rank, dtype, chunk_bytes
        self._scratch = Scratch()

    def send(self, version: Version) -> SyncReceipt:
        pairs = iter(self._source)
        try:
            return self._drive(version, pairs) if self._rank == 0 else no_part(version)
        finally:
            exhaust(pairs)

    def _drive(self, version: Version, pairs: Iterator[Any]) -> SyncReceipt:
        """Write and send all chunks. Also runs when every receiver is lost: the copy serves receivers that join later."""
        started = time.perf_counter()
        client = self._client
        client.begin()
        client.call("start_weight_update")
        publish = receive = 0.0
        sent = 0
        updates: list[dict[str, Any]] = []
        loading: Sequence[Call] = ()
        parts = self._written(pairs)
        while True:
            before = time.perf_counter()
            part = next(parts, None)
            publish += time.perf_counter() - before
            receive += max(client.values(loading), default=0.0)
            if part is None:
                break
            updates.append(part[0])
            sent += part[1]
            loading = client.ask("update_weights", [(part[0],)] * len(client.engines))
        client.call("finish_weight_update", version)
        return SyncReceipt(
            version=version,
            bytes=sent,
            publish_seconds=publish,
            receive_seconds=receive,
            seconds=time.perf_counter() - started,
            lost=dict(client.lost),
            copy=HostCopy(version=version, kind="weights", chunks=tuple(updates)),
        )

    def _written(self, pairs: Iterator[Any]) -> Iterator[tuple[dict[str, Any], int]]:
        """Each chunk as published in the object store, and its size in bytes."""
        for chunk in pack_chunks(pairs, self._chunk_bytes, self._dtype, self._scratch):
            yield put(chunk, self._client.seconds), size_of(chunk)
            del chunk  # free the gathered layers before the next ones are gathered


class AdapterSender(Sender):
    """Sends only the LoRA factors, through the object store, to engines that serve the base model with an adapter."""

    def __init__(self, source: Any, client: SyncClient, *, rank: int) -> None:
        self._source, self._client, self._rank = source, client, rank

    def send(self, version: Version) -> SyncReceipt:
        started = time.perf_counter()
        pairs = list(self._source)  # a collective of all ranks
        if self._rank:
            return no_part(version)
        client = self._client
        client.begin()
        (chunk,) = pack_chunks(pairs, 2**62)
        update = put(chunk, client.seconds)
        published = time.perf_counter()
        received = max(client.call("load_adapter", update | {"version": version}), default=0.0)
        return SyncReceipt(
            version=version,
            bytes=size_of(chunk),
            publish_seconds=published - started,
            receive_seconds=received,
            seconds=time.perf_counter() - started,
            lost=dict(client.lost),
            copy=HostCopy(version=version, kind="adapter", chunks=(update,)),
        )
