"""Writes a rank's checkpoint while training continues: first copies to host memory, then files by a separate thread.

    save(): collective ──> copies in host memory ──> the training thread continues
                                    │
                                    └──> the writer's thread ──> files ──> disk

The training thread writes nothing to disk: if a write failed there, the other ranks would wait in a collective.
"""

from __future__ import annotations

import copy
import errno
import io
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine

from actors.trainer import safe_loading
from actors.trainer.messages import WriteState
from renio_pipeline.run_dir.fence import NO_FENCE, Fence

# Kept free, so that a full disk fails only the checkpoint: metrics, samples and ledgers are on the same disk.
RESERVE_BYTES = 16 * 2**20


class Writer:
    """Runs jobs in order on one thread. After one failed, the remaining jobs of the same checkpoint are skipped."""

    def __init__(self, fence: Fence = NO_FENCE) -> None:
        """``fence``: of the run's directory. A rank whose driver has lost the lease writes no further file."""
        self._fence = fence
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._jobs: list[Future[None]] = []
        self._failed = False

    def begin(self) -> None:
        """Start a new checkpoint, and forget the previous one."""
        assert self.state().done, "the previous checkpoint is still being written"
        self._jobs, self._failed = [], False

    def add(self, path: str | Path, size: int, write: Callable[[], object]) -> None:
        """Run ``write``, which creates ``path`` (a file or a folder) of about ``size`` bytes, and sync it to disk."""
        self._jobs.append(self._thread.submit(self._run, Path(path), size, write))

    def state(self) -> WriteState:
        if not all(job.done() for job in self._jobs):
            return WriteState(done=False)
        errors = [error for job in self._jobs if (error := job.exception())]
        return WriteState(done=True, failure=f"{type(errors[0]).__name__}: {errors[0]}" if errors else None)

    def _run(self, path: Path, size: int, write: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            self._fence.check()
            path.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(path.parent).free
            if free < size + RESERVE_BYTES:
                raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {size} bytes to write, {free} free", str(path))
            write()
            _sync(path)
        except BaseException:
            self._failed = True
            raise


class WriterEngine(CheckpointEngine):
    """DeepSpeed's files through a Writer. Loading is immediate, and unpickles only a few of DeepSpeed's classes."""

    def __init__(self, writer: Writer) -> None:
        self.name, self._writer = "WriterEngine", writer

    def create(self, info: Any) -> None:
        pass

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        pass  # the writer's thread creates folders

    def save(self, state_dict: Any, path: str) -> None:
        copied, size = host_copy(state_dict)
        self._writer.add(path, size, lambda: save_file(copied, path))

    def load(self, path: str, map_location: Any = None) -> Any:
        return safe_loading.load(path, map_location)

    def commit(self, info: Any) -> bool:
        return True


def save_file(value: Any, path: str) -> None:
    """torch.save that raises the system's error. torch itself reports a full disk as an unexpected position."""
    with _Teller(io.FileIO(path, "wb")) as file:
        try:
            torch.save(value, file)
        except RuntimeError:
            if file.error is None:
                raise
            raise file.error from None


class _Teller(io.BufferedWriter):
    """A file that remembers why a write failed."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def host_copy(value: Any) -> tuple[Any, int]:
    """A deep copy in host memory, and the bytes of its tensors. Tensors that share memory share the copy too."""
    seen: dict[tuple[Any, ...], torch.Tensor] = {}

    def of(part: Any) -> Any:
        if isinstance(part, torch.Tensor):
            key = (part.data_ptr(), part.shape, part.stride(), part.dtype)
            if key not in seen or not part.numel():
                seen[key] = part.detach().to("cpu", copy=True).contiguous()
            return seen[key]
        if isinstance(part, dict):
            return {key: of(item) for key, item in part.items()}
        if type(part) in (list, tuple):
            return type(part)(of(item) for item in part)
        return copy.deepcopy(part)

    copied = of(value)
    return copied, sum(t.numel() * t.element_size() for t in seen.values())


def size_of(state: Mapping[str, torch.Tensor]) -> int:
    """Bytes of all tensors."""
    return sum(t.numel() * t.element_size() for t in state.values())


def _sync(path: Path) -> None:
    from renio_pipeline.run_dir.checkpoint_files import sync_files, sync_folder

    (sync_files if path.is_dir() else sync_folder)(path)
