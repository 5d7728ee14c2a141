"""Keeps a long run's directory small: packs the samples of past steps and full ledgers, and drops the oldest samples.

Only what a checkpoint covers is touched. No resume goes back behind it, so that whoever takes the run over has no other version
of these files, and a driver that wakes late and still packs one of them changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from renio_pipeline.config.schema import Samples
from renio_pipeline.run_dir.batches import step_path
from renio_pipeline.run_dir.fence import NO_FENCE, Fence, LeaseLostError
from renio_pipeline.run_dir.json_lines import pack, remove
from renio_pipeline.run_dir.ledger_files import full_ledgers


@dataclass(frozen=True, slots=True)
class Tidied:
    """The last step whose file was packed, and the last whose file was dropped."""

    packed: int = 0
    dropped: int = 0


class Archive:
    """Usage: ``tidy(...)`` after a step, ``await finish()`` at the end. It works in a thread, on one call's files at a time."""

    def __init__(self, run_dir: Path, samples: Samples, *, note: Callable[[str], None], fence: Fence = NO_FENCE) -> None:
        self._run_dir, self._samples, self._note, self._fence = run_dir, samples, note, fence
        self._working: asyncio.Task[None] | None = None
        self._tidied, self._failed = Tidied(), False

    def tidy(self, step: int, covered: int) -> None:
        """Begin to pack and drop what may be after ``step``, where the newest checkpoint is of step ``covered``.

        No effect while it works on an earlier call: the next one does it.
        """
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._tidy(step, covered))

    async def finish(self) -> None:
        """Wait until it has done what it has begun."""
        if self._working is not None:
            await self._working

    def back_to(self, step: int) -> None:
        """Later steps are trained again."""
        self._tidied = Tidied(min(self._tidied.packed, step), min(self._tidied.dropped, step))

    async def _tidy(self, step: int, covered: int) -> None:
        arguments = self._run_dir, self._samples, step, covered, self._tidied, self._fence
        try:
            self._tidied = await asyncio.to_thread(tidy, *arguments)
        except (OSError, LeaseLostError) as error:  # every file is still there, in one form or the other
            if not self._failed:
                self._note(f"past samples could not be packed: {error}")
            self._failed = True


def tidy(run_dir: Path, samples: Samples, step: int, covered: int, since: Tidied = Tidied(), fence: Fence = NO_FENCE) -> Tidied:
    """See the module. Raises OSError, LeaseLostError."""
    for path in full_ledgers(run_dir / "ledger"):
        pack(path, fence)
    dropped = max(since.dropped, min(covered, step - samples.keep)) if samples.keep else since.dropped
    for past in range(since.dropped + 1, dropped + 1):
        fence.check()
        remove(step_path(run_dir, past))
    packed = max(since.packed, min(covered, step - samples.plain))
    for past in range(max(since.packed, dropped) + 1, packed + 1):
        if (path := step_path(run_dir, past)).exists():  # not of a step that kept no sample
            pack(path, fence)
    return Tidied(packed, dropped)
