"""Quarantined samples, which killed their workers, and why: ``samples/rejected.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from renio_pipeline.run_dir.checkpoint_files import sync_folder
from renio_pipeline.run_dir.fence import NO_FENCE, Fence, own_file
from renio_pipeline.run_dir.json_lines import complete_lines


class QuarantineLog:
    """Usage: ``add(...)`` for each sample that is quarantined; ``ids`` has those of this restart epoch.

    A resumed run may draw a quarantined sample again and succeed with it, so ``ids`` starts empty. The file keeps one line per
    sample, the first.
    """

    def __init__(self, path: Path | None, note: Callable[[str], None], fence: Fence = NO_FENCE) -> None:
        """``path``: the file, created with its first line; None: no file. Raises OSError, LeaseLostError."""
        self._path, self._note, self._fence = path, note, fence
        self.ids: set[int] = set()
        self._written: set[int] = set()
        fence.check()
        if path is not None and path.exists():
            _cut_torn_line(path)  # before the next line is appended
            self._written = {line["sample_id"] for line in complete_lines(path)}

    def add(self, sample_id: int, reason: str, where: str, prompt_row_id: str) -> None:
        """Quarantine a sample. A second call for it does nothing. The line is on the disk when this returns.

        ``where`` is the pool that quarantined it; ``prompt_row_id`` its row's id in the task's data. Raises OSError,
        LeaseLostError.
        """
        if sample_id in self.ids:
            return
        self.ids.add(sample_id)
        self._note(f"sample {sample_id} (row {prompt_row_id}) is quarantined by pool {where}: {reason}")
        if self._path is not None and sample_id not in self._written:
            self._written.add(sample_id)
            line = {"sample_id": sample_id, "row": prompt_row_id, "where": where, "reason": reason}
            new = not self._path.exists()
            self._fence.append(self._path, json.dumps(line).encode() + b"\n")  # ASCII: a reason may hold anything
            sync_folder(self._path)
            if new:
                sync_folder(self._path.parent)


def _cut_torn_line(path: Path) -> None:
    """Drop an incomplete last line, which a killed process leaves."""
    text = path.read_bytes()
    with own_file(path, 0) as file:
        file.truncate(text.rfind(b"\n") + 1)
