"""vLLM's native weight transfer on a machine without GPUs.

``install()`` puts gloo in the place of NCCL, and nothing in the place of CUDA's streams, in the process that calls it. All
else stays vLLM's own: the rendezvous, the members' ranks, the packing, the trainer's engine and the workers'.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed import PrefixStore, ProcessGroupGloo

if TYPE_CHECKING:
    from vllm.distributed.utils import StatelessProcessGroup

BLOCKED_SECONDS = 150  # longer than any test waits: within a test, a broadcast that a member misses never ends

made: list[GlooCommunicator] = []  # in this process; never collected, because a group's end waits for what is under way


class GlooCommunicator:
    """The interface of vLLM's ``PyNcclCommunicator``.

    As with NCCL, a broadcast ends when every member has joined it, or when ``destroy`` aborts it, which the other members
    do not notice.
    """

    def __init__(self, group: StatelessProcessGroup, device: Any) -> None:
        self.rank, self.world_size = group.rank, group.world_size
        self._group = group  # holds the store that the first rank serves
        self._aborted = False
        if group.store.add(f"members of rank {self.rank}", 1) > 1:
            raise RuntimeError(f"two members of the transfer group have rank {self.rank}")
        store = PrefixStore("gloo", group.store)
        self._gloo = ProcessGroupGloo(store, self.rank, self.world_size, timedelta(seconds=BLOCKED_SECONDS))
        made.append(self)

    def broadcast(self, tensor: torch.Tensor, src: int, stream: Any = None) -> None:
        self._finish(lambda: self._gloo.broadcast(tensor.view(-1).view(torch.uint8), src))
        self._finish(self._gloo.barrier)

    def destroy(self) -> None:
        self._aborted = True

    def _finish(self, start: Any) -> None:
        if self._aborted:
            return
        work = start()
        while not work.is_completed():
            if self._aborted:
                return
            time.sleep(0.0002)
        work.wait()


class Stream:
    """A CUDA stream that is always done."""

    def __init__(self, device: int | None = None) -> None:
        self.device = device

    def synchronize(self) -> None:
        pass


def install() -> None:
    """Let vLLM's engines run here, for as long as this process lives."""
    from vllm.distributed.device_communicators import pynccl

    pynccl.PyNcclCommunicator = GlooCommunicator
    torch.accelerator.current_device_index = lambda: 0
    torch.accelerator.synchronize = lambda: None
    torch.cuda.Stream = Stream
    torch.cuda.current_stream = lambda: Stream()
