"""The receiver's side of a weight sync before its engine's own load: host memory, and waits that can be aborted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np

from actors.weight_sync.chunked_arrays import join_arrays


class TransferAborted(RuntimeError):
    """A member of a transfer group was told to stop waiting for the others. It is not the member that failed."""


class Waiting:
    """Calls in which an engine's workers wait for the other members of a transfer group, which may never join.

    A worker may be a separate process, which answers nothing while it waits. So it watches a file, and waits only while the
    file exists.
    """

    def __init__(self) -> None:
        self._files: set[Path] = set()

    @contextlib.contextmanager
    def for_others(self) -> Iterator[str]:
        """The file to watch within this block. Raises TransferAborted if ``abort`` was called in the meantime."""
        handle, name = tempfile.mkstemp(prefix="renio-transfer-")
        os.close(handle)
        file = Path(name)
        self._files.add(file)
        try:
            yield name
        except Exception as error:
            if file.exists():
                raise
            raise TransferAborted("the transfer was aborted: another receiver is missing, or failed") from error
        finally:
            file.unlink(missing_ok=True)
            self._files.discard(file)

    def abort(self) -> None:
        """End every block of ``for_others`` soon: workers check their files periodically."""
        for file in list(self._files):
            file.unlink(missing_ok=True)


class HostReceiver:
    """Makes a published chunk readable for vLLM's workers: in place within this process, as a copy for other processes.

    Ray closes the object store's file once it has mapped it, so a process that Ray did not start cannot reach that memory.
    """

    def __init__(self, *, in_process: bool) -> None:
        self._in_process = in_process
        self._blocks: list[shared_memory.SharedMemory] = []

    async def fetch(self, update_info: dict[str, Any]) -> dict[str, Any]:
        """Fetch a chunk. Raises TimeoutError if it does not arrive in time, and Ray's errors if it is lost."""
        try:
            pieces = await asyncio.wait_for(update_info["ref"], update_info["seconds"])
        except TimeoutError:
            raise TimeoutError(f"a chunk of weights did not arrive within {update_info['seconds']:g} s") from None
        layout = {key: update_info[key] for key in ("names", "dtypes", "shapes")}
        arrays = join_arrays(pieces, update_info["pieces"])
        if self._in_process:
            return layout | {"arrays": arrays}
        ends = list(itertools.accumulate(-(-len(array) // 64) * 64 for array in arrays))  # aligned for every dtype
        block = shared_memory.SharedMemory(create=True, size=max(1, *ends))
        self._blocks.append(block)
        spans = [(start, start + len(array)) for start, array in zip([0, *ends], arrays, strict=False)]
        for (start, end), array in zip(spans, arrays, strict=True):
            np.ndarray(end - start, np.uint8, block.buf, start)[:] = array
        return layout | {"shared_memory": block.name, "spans": spans}

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Free the fetched chunks after this block. Workers keep a block mapped as long as they read from it."""
        try:
            yield
        finally:
            for block in self._blocks:
                with contextlib.suppress(BufferError):
                    block.close()
                block.unlink()
            self._blocks = []
