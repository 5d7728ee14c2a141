"""Weights from the trainer ranks to the generators, through vLLM's weight-transfer API.

    source = DeepSpeedSource(engine.module, dtype=torch.bfloat16)                     # on every rank
    client = SyncClient(generators, workers, seconds=1800)                            # the first rank drives
    sender = make_sender("host", source, client, rank=rank)
    sender.open()
    receipt = sender.send(Version(0, 1))                                              # collective: all ranks call it

Every backend follows vLLM's protocol: start_weight_update, update_weights (once or more), finish_weight_update(version).
``host`` goes through the object store; ``nccl`` and ``ipc`` are vLLM's own trainer engines behind the same ``send``.

A receiver that dies or hangs does not end the run. Through ``host`` and ``ipc`` the others get their weights, and the
receipt names it. The members of an ``nccl`` group wait for each other, so there the transfer fails, and the error names it.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from renio_pipeline.types import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCopy:
    """What was published last, for a receiver that comes later: see its verb ``load_copy``.

    The chunks lie in the object store of the first rank's node, and in that of every node that has read them: one model's
    bytes a node (or one adapter's), until the last holder of this object lets it go. The sender itself does not hold it: who
    keeps the newest one, and no older one, keeps the memory of one. It dies with the first rank's process.
    """

    version: Version
    kind: Literal["weights", "adapter"]
    chunks: tuple[dict[str, Any], ...]  # as ``wire.put`` makes them


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReceipt:
    version: Version
    bytes: int
    publish_seconds: float  # gathering, casting and writing the host copy; 0 where the backend overlaps them
    receive_seconds: float  # the slowest generator's fetch, before its engine's own load
    seconds: float
    lost: dict[int, str] = field(default_factory=dict)  # receivers without this version, and why, by place in the list
    copy: HostCopy | None = None  # of the first rank, where weights or adapter went through the object store


class TransferFailed(RuntimeError):
    """Receivers that did not come to a rendezvous, or did not see a transfer through, so that the others could not either.

    The others hold a part of new weights. They serve again after a ``connect`` without the lost ones and another ``publish``.

    Attributes:
        lost: why, by place in the list of receivers.
    """

    def __init__(self, lost: dict[int, str]) -> None:
        super().__init__(lost)
        self.lost = lost

    def __str__(self) -> str:
        named = "; ".join(f"receiver {index} {reason}" for index, reason in sorted(self.lost.items()))
        return f"the weight transfer failed ({named}): connect the receivers that are left, and publish again"


class Sender(abc.ABC):
    """Brings the receivers to the weights of a source. One for a list of receivers: another list, another sender."""

    def open(self) -> None:  # noqa: B027  only some have something to do
        """Meet the receivers. All trainer ranks call it.

        Raises:
            TransferFailed: receivers did not come; on the first rank. ``send`` then raises too, and keeps the ranks in step.
        """

    @abc.abstractmethod
    def send(self, version: Version) -> SyncReceipt:
        """Bring every receiver to ``version``. All trainer ranks call it, at the same time, and all come out of it.

        Raises:
            TransferFailed: receivers that wait for each other lost some; on the first rank.
            Exception: a receiver that is well refuses; on the first rank, as the receiver raised it.
        """

    def close(self) -> None:  # noqa: B027
        """Leave the receivers; another sender will come."""


def no_part(version: Version) -> SyncReceipt:
    """Of a rank that only gathers."""
    return SyncReceipt(version=version, bytes=0, publish_seconds=0, receive_seconds=0, seconds=0)


def exhaust(pairs: Iterator[Any]) -> None:
    """Gathering is a collective of all ranks: a rank that is done, or has failed, still takes part in what is left."""
    for _ in pairs:
        pass
