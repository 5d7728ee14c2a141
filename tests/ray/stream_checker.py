"""CUDA streams as far as order goes, on a machine without any: who made a tensor, and who reads it before that is certain.

On a GPU, work on one stream runs while another's goes on. A tensor that one stream makes may be read by another only after
something has waited for the first: otherwise the other reads whatever is in that memory, and nothing says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class UnorderedReadError(AssertionError):
    """A tensor was read on a stream that nothing made wait for the one that wrote it."""


class Streams(TorchDispatchMode):
    """Usage: ``with Streams(2) as streams, streams.current(0): ...``; raises UnorderedReadError at the first such read."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.all = [Stream(self, i) for i in range(count)]
        self.now: Stream | None = None  # None: the default stream, which the sender has waited for
        self.operations = 0
        self._written: dict[int, tuple[Stream, int, torch.UntypedStorage]] = {}  # by storage, which is kept alive

    @contextlib.contextmanager
    def current(self, stream: Stream) -> Iterator[None]:
        """In the place of ``torch.cuda.stream``."""
        before, self.now = self.now, stream
        try:
            yield
        finally:
            self.now = before

    def read(self, tensor: torch.Tensor) -> None:
        """Raises UnorderedReadError if the current stream may be ahead of the one that wrote this tensor."""
        found = self._written.get(tensor.untyped_storage()._cdata)
        if found is not None and found[0] is not self.now and found[1] > found[0].waited_for:
            raise UnorderedReadError(f"made on stream {found[0].name}, read on {self.now and self.now.name} without a wait")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor):
                self.read(leaf)
        made = func(*args, **(kwargs or {}))
        self.operations += 1
        if self.now is not None:
            old = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
            for leaf in tree_leaves(made):
                if isinstance(leaf, torch.Tensor) and (key := leaf.untyped_storage()._cdata) not in old:  # views write nothing
                    self._written[key] = (self.now, self.operations, leaf.untyped_storage())
        return made


class Stream:
    def __init__(self, streams: Streams, name: int) -> None:
        self._streams, self.name = streams, name
        self.waited_for = 0  # the number of the last operation that is certain to have ended

    def synchronize(self) -> None:
        self.waited_for = self._streams.operations


class Communicator:
    """vLLM's ``PyNcclCommunicator`` for one member: it reads what it broadcasts on the current stream, and keeps its bytes."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self.sent: list[bytes] = []

    def broadcast(self, tensor: torch.Tensor, src: int, stream: Any = None) -> None:
        self._streams.read(tensor)
        self.sent.append(tensor.numpy().tobytes())
