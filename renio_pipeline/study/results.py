"""The raw results of a study: one line per run, one file per experiment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from renio_pipeline.run_dir.checkpoint_files import sync_folder
from renio_pipeline.run_dir.fence import NO_FENCE, Fence
from renio_pipeline.study.plan import Cell

Record = dict[str, Any]
Key = tuple[str, int]  # the key of the configuration, and the seed


class Results:
    """The results of a study so far. Coinciding arms of several experiments share one record, in whichever file it is."""

    def __init__(self, folder: Path, fence: Fence = NO_FENCE) -> None:
        self.folder, self._fence = folder, fence
        self.records: dict[Key, Record] = {}
        for path in sorted(folder.glob("*.jsonl")):
            self.records |= {(r["config"], r["seed"]): r for r in whole_lines(path)}

    def has(self, cell: Cell) -> bool:
        return (cell.key, cell.seed) in self.records

    def of(self, cell: Cell) -> Record | None:
        return self.records.get((cell.key, cell.seed))

    def add(self, cell: Cell, found: Record) -> None:
        """Append to the experiment's file in one write. A line that an earlier writer left incomplete is removed first."""
        of = {"experiment": cell.experiment, "arm": cell.arm, "factors": cell.factors, "seed": cell.seed, "config": cell.key}
        record = of | found
        path = self.folder / f"{cell.experiment}.jsonl"
        self._fence.check()
        _cut_torn_line(path)
        self._fence.append(path, (json.dumps(record) + "\n").encode())
        sync_folder(path)
        self.records[cell.key, cell.seed] = record


def whole_lines(path: Path) -> Iterator[Record]:
    """The records of a file; an incomplete last line is left out."""
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.endswith("\n"))


def _cut_torn_line(path: Path) -> None:
    if path.exists() and (data := path.read_bytes()) and not data.endswith(b"\n"):
        with path.open("rb+") as file:
            file.truncate(data.rfind(b"\n") + 1)
