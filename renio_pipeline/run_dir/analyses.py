"""The analyses that teachers wrote in a run: ``analyses.jsonl``. A resumed run shows its teachers the same texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from renio_pipeline.run_dir.fence import NO_FENCE, Fence, own_file

FILE = "analyses.jsonl"


class AnalysisLog:
    """Maps a key to its recorded text. The texts stay in the file: of a large data set they may take gigabytes."""

    def __init__(self, path: Path | None, fence: Fence = NO_FENCE) -> None:
        """``path``: the file, created with its first line; None: they are kept in memory. Raises OSError, LeaseLostError."""
        self._path, self._fence = path, fence
        self._places: dict[str, tuple[int, int]] = {}  # of each line: its first byte, and its length
        self._memory: dict[str, str] = {}
        self._end = 0
        fence.check()
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        return len(self._places) + len(self._memory)

    def get(self, key: str) -> str | None:
        if self._path is None:
            return self._memory.get(key)
        if key not in self._places:
            return None
        start, length = self._places[key]
        with self._path.open("rb") as file:
            file.seek(start)
            return str(json.loads(file.read(length))["text"])

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append records, which have a ``key`` and a ``text``. Raises OSError, LeaseLostError."""
        if self._path is None:
            self._memory |= {record["key"]: record["text"] for record in records}
            return
        lines = [json.dumps(record).encode() + b"\n" for record in records]
        self._fence.append(self._path, b"".join(lines))
        for record, line in zip(records, lines, strict=True):
            self._places[record["key"]] = (self._end, len(line))
            self._end += len(line)

    def _read(self, path: Path) -> None:
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # incomplete: a killed process left it
                self._places.setdefault(json.loads(line)["key"], (self._end, len(line)))
                self._end += len(line)
        with own_file(path, 0) as file:
            file.truncate(self._end)  # before the next line is appended
