"""Weights from the trainer ranks to the generators, through vLLM's weight-transfer API.

    source = DeepSpeedSource(engine.module, dtype=torch.bfloat16)                     # on every rank
    client = SyncClient(generators, workers, seconds=1800)                            # the first rank drives
    sender = make_sender("host", source, client, rank=rank)
    sender.open()
    receipt = sender.send(Version(0, 1))                                              # collective: all ranks call it

Every backend follows vLLM's protocol: start_weight_update, update_weights (once or more), finish_weight_update(version).
``host`` sends through the object store; ``nccl`` and ``ipc`` are vLLM's own trainer engines behind the same ``send``.

A receiver that dies or hangs does not end the run. With ``host`` and ``ipc`` the others receive their weights, and the receipt
names the lost one. The members of an ``nccl`` group wait for each other, so the transfer fails, and the error names the lost
one.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from renio_pipeline.types import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCopy:
    """What was published last, for a receiver that joins later: see its method ``load_copy``.

    The chunks are in the object store of the first rank's node and of every node that has read them. They take one model's
    bytes per node (or one adapter's) until the last holder of this object drops it. The sender does not hold it, so a caller
    that keeps only the newest copy uses the memory of one. The copy is lost with the first rank's process.
    """

    version: Version
    kind: Literal["weights", "adapter"]
    chunks: tuple[dict[str, Any], ...]  # as returned by ``wire.put``


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReceipt:
    """What a weight sync did. A rank that only takes part in gathering reports zeros."""

    version: Version
    bytes: int
    publish_seconds: float  # gathering, casting and writing the host copy; 0 where the backend overlaps them
    receive_seconds: float  # the slowest generator's fetch, before its engine's own load
    seconds: float
    lost: dict[int, str] = field(default_factory=dict)  # the reason for each receiver that lacks this version, by index
    copy: HostCopy | None = None  # set on the first rank if weights or adapter went through the object store


class TransferFailed(RuntimeError):
    """Receivers did not join a rendezvous or did not complete a transfer, so the others could not complete it either.

    The others have incomplete weights. They serve again after a ``connect`` without the lost ones and another ``publish``.

    Attributes:
        lost: the reason for each lost receiver, by its index.
    """

    def __init__(self, lost: dict[int, str]) -> None:
        super().__init__(lost)
        self.lost = lost

    def __str__(self) -> str:
        named = "; ".join(f"receiver {index} {reason}" for index, reason in sorted(self.lost.items()))
        return f"the weight transfer failed ({named}): connect the remaining receivers and publish again"


class Sender(abc.ABC):
    """Sends the weights of a source to a fixed list of receivers. Another list needs another sender."""

    def open(self) -> None:  # noqa: B027  only some senders need it
        """Set up the transfer with the receivers. All trainer ranks call it.

        Raises:
            TransferFailed: receivers did not join. Raised on the first rank; ``send`` then raises too and keeps ranks in step.
        """

    @abc.abstractmethod
    def send(self, version: Version) -> SyncReceipt:
        """Send ``version`` to every receiver. All trainer ranks call it at the same time, and it returns on all of them.

        Raises:
            TransferFailed: some receivers of a group that waits for each other were lost. Raised on the first rank.
            Exception: a healthy receiver refused. Raised on the first rank, as the receiver raised it.
        """

    def close(self) -> None:  # noqa: B027
        """Leave the receivers. Another sender takes over."""


def no_part(version: Version) -> SyncReceipt:
    """The receipt of a rank that only takes part in gathering."""
    return SyncReceipt(version=version, bytes=0, publish_seconds=0, receive_seconds=0, seconds=0)


def exhaust(pairs: Iterator[Any]) -> None:
    """Consume the rest. Gathering is collective, so a rank that is done or has failed must still take part in it."""
    for _ in pairs:
        pass
