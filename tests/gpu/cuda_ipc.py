"""A communicator of two processes on one GPU, where NCCL refuses: memory and events that both map, in the streams' order."""

from __future__ import annotations

from typing import Any


class CudaIpc:
    """What vLLM's packed weight transfer asks of a `PyNcclCommunicator`: `broadcast`, in the order of the current stream.

    As with NCCL, a broadcast returns before the bytes have moved; only the stream waits. The sender's bytes go through a
    buffer that the receiver maps; two events for each broadcast say when it is full, and when it has been read.

    Args:
        pipe: to the other process; made with torch.multiprocessing, whose pickling hands memory over.
        buffer_bytes: of the largest tensor.
    """

    def __init__(self, rank: int, pipe: Any, buffer_bytes: int) -> None:
        import torch

        self.rank, self.world_size, self._pipe = rank, 2, pipe
        self._read: Any = None  # the event after which the buffer may be filled again
        self._kept: list[Any] = []  # events that the other process maps
        if rank == 0:
            self._buffer = torch.empty(buffer_bytes, dtype=torch.uint8, device="cuda")
            pipe.send(self._buffer)
        else:
            self._buffer = pipe.recv()

    def broadcast(self, tensor: Any, src: int, stream: Any = None) -> None:
        import torch

        stream = stream or torch.cuda.current_stream()
        flat = tensor.view(-1).view(torch.uint8)
        with torch.cuda.stream(stream):
            if self.rank == src:
                if self._read is not None:
                    stream.wait_event(self._read)
                self._buffer[: len(flat)].copy_(flat)
                self._pipe.send(self._record(stream))
                self._read = self._other()
                stream.wait_event(self._read)
            else:
                stream.wait_event(self._other())
                flat.copy_(self._buffer[: len(flat)])
                self._pipe.send(self._record(stream))

    def destroy(self) -> None:
        """Nothing is under way that could be aborted."""

    def _record(self, stream: Any) -> bytes:
        import torch

        event = torch.cuda.Event(interprocess=True)
        event.record(stream)
        self._kept = [*self._kept[-64:], event]
        handle: bytes = event.ipc_handle()
        return handle

    def _other(self) -> Any:
        import torch

        return torch.cuda.Event.from_ipc_handle(torch.device("cuda", torch.cuda.current_device()), self._pipe.recv())


class Piped:
    """The same without a GPU: the bytes go through the pipe."""

    def __init__(self, rank: int, pipe: Any) -> None:
        self.rank, self.world_size, self._pipe = rank, 2, pipe

    def broadcast(self, tensor: Any, src: int, stream: Any = None) -> None:
        import torch

        flat = tensor.view(-1).view(torch.uint8)
        if self.rank == src:
            self._pipe.send_bytes(flat.numpy().tobytes())
        else:
            flat.copy_(torch.frombuffer(bytearray(self._pipe.recv_bytes()), dtype=torch.uint8))

    def destroy(self) -> None:
        """Nothing is under way that could be aborted."""
