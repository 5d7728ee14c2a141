"""Checkpoints while the run continues: the step waits for a copy in memory, a background task for the disk."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from renio_pipeline.run_dir.checkpoint_files import RunState, begin, commit, prune
from renio_pipeline.run_dir.fence import NO_FENCE, Fence
from renio_pipeline.types import Version


class CheckpointError(RuntimeError):
    """Ranks could not write their files. The text names them and the reason. Only the checkpoint fails, not the run."""


class Saves(Protocol):
    """The part of the trainers that checkpoints need."""

    async def save(self, folder: str) -> None:
        """Copy every rank's state to its host's memory and start to write it below ``folder``."""
        ...

    async def written(self) -> None:
        """Wait until no rank is writing. Raises CheckpointError if one failed."""
        ...


class Checkpointer:
    """Usage: ``await save(state)`` after a step, ``await finish()`` at the end. One checkpoint is written at a time."""

    def __init__(
        self, folder: Path, trainers: Saves, *, keep: int, note: Callable[[str], None], fence: Fence = NO_FENCE
    ) -> None:
        self._folder, self._trainers, self._keep, self._note, self._fence = folder, trainers, keep, note, fence
        self._writing: asyncio.Task[Path | None] | None = None
        self._asked: list[asyncio.Future[tuple[int, Path | None]]] = []
        self._last: tuple[int, Version, Path] | None = None  # the newest that was written: its step, weights and folder

    @property
    def covered(self) -> int:
        """The step of the newest checkpoint that was written, 0 before the first."""
        return 0 if self._last is None else self._last[0]

    @property
    def asked(self) -> bool:
        """Whether a caller of ``ask`` waits for a checkpoint of the current step."""
        return bool(self._asked)

    def ask(self) -> asyncio.Future[tuple[int, Path | None]]:
        """The next ``save``, whose caller looks at ``asked``: its step, and its folder unless it failed."""
        found: asyncio.Future[tuple[int, Path | None]] = asyncio.get_running_loop().create_future()
        self._asked.append(found)
        return found

    async def save(self, state: RunState) -> None:
        """Start a checkpoint. Returns when training may change the weights again; waits for an earlier checkpoint first.

        Raises LeaseLostError: this run may write no checkpoint any more. ``finish`` raises it too.
        """
        await self.finish()
        if self._last is not None and self._last[:2] == (state.step, state.version):
            self._answer(state.step, self._last[2])  # asked for in a pause right after it was due: nothing has changed
            return
        try:
            partial = begin(self._folder, state, self._fence)
        except OSError as error:
            self._note(f"checkpoint at step {state.step} failed: {error}")
            self._answer(state.step, None)
            return
        await self._trainers.save(str(partial))
        self._writing = asyncio.create_task(self._complete(partial, state))

    async def finish(self) -> Path | None:
        """Wait for the checkpoint in progress. Returns its folder, or None where it failed or there is none."""
        found = None
        if self._writing is not None:
            found = await self._writing
            self._writing = None
        return found

    async def give_up(self, why: str) -> None:
        """Give up the checkpoint in progress, whose writers are gone, unless they had written all of it."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        (outcome,) = await asyncio.gather(writing, return_exceptions=True)  # ``written`` notices at once that they are gone
        if isinstance(outcome, BaseException):
            self._note(f"the checkpoint in progress is given up: {why}")

    async def _complete(self, partial: Path, state: RunState) -> Path | None:
        final = await self._commit(partial, state)
        if final is not None:
            self._last = state.step, state.version, final
        self._answer(state.step, final)
        return final

    async def _commit(self, partial: Path, state: RunState) -> Path | None:
        try:
            await self._trainers.written()
            final = await asyncio.to_thread(commit, partial, state, self._fence)
        except (CheckpointError, OSError) as error:
            await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
            self._note(f"checkpoint at step {state.step} failed: {error}")
            return None
        self._note(f"checkpoint {final}")
        try:
            await asyncio.to_thread(prune, self._folder, self._keep, self._fence)
        except OSError as error:
            self._note(f"checkpoints older than {final} could not be deleted: {error}")
        return final

    def _answer(self, step: int, final: Path | None) -> None:
        asked, self._asked = self._asked, []
        for found in asked:
            if not found.done():
                found.set_result((step, final))
