"""Weights and adapters through the object store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from actors.sync_client import SyncClient
from actors.weight_sync import HostCopy, Sender, SyncReceipt, exhaust, no_part
from actors.wire import pack_chunks, put
from renio_pipeline.types import Version

CHUNK_BYTES = 256 * 2**20


class HostSender(Sender):
    """Writes the weights once to the object store: every generator of a node reads the same copy in place."""

    def __init__(self, source: Any, client: SyncClient, *, rank: int, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._source, self._client, self._rank, self._chunk_bytes = source, client, rank, chunk_bytes

    def send(self, version: Version) -> SyncReceipt:
        pairs = iter(self._source)
        try:
            return self._drive(version, pairs) if self._rank == 0 else no_part(version)
        finally:
            exhaust(pairs)

    def _drive(self, version: Version, pairs: Iterator[Any]) -> SyncReceipt:
        """With all receivers lost, too: the copy is for those that come."""
        started = time.perf_counter()
        client = self._client
        client.begin()
        client.call("start_weight_update")
        publish = receive = 0.0
        sent = 0
        updates = []
        chunks = pack_chunks(pairs, self._chunk_bytes)
        while True:
            before = time.perf_counter()
            chunk = next(chunks, None)
            if chunk is None:
                break
            updates.append(put(chunk, client.seconds))
            publish += time.perf_counter() - before
            sent += len(chunk["array"])
            receive += max(client.call("update_weights", updates[-1]), default=0.0)
        client.call("finish_weight_update", version)
        return SyncReceipt(
            version=version, bytes=sent, publish_seconds=publish, receive_seconds=receive,
            seconds=time.perf_counter() - started, lost=dict(client.lost),
            copy=HostCopy(version=version, kind="weights", chunks=tuple(updates)),
        )  # fmt: skip


class AdapterSender(Sender):
    """Sends LoRA factors alone, through the object store, to engines that serve the base with an adapter."""

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
            version=version, bytes=len(chunk["array"]), publish_seconds=published - started, receive_seconds=received,
            seconds=time.perf_counter() - started, lost=dict(client.lost),
            copy=HostCopy(version=version, kind="adapter", chunks=(update,)),
        )  # fmt: skip
