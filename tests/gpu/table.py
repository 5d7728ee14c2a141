"""The rows of all checks as one table, for people (Markdown) and for programs (JSON)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from tests.gpu.runner import Row

MARKDOWN, JSON = "gpu-check.md", "gpu-check.json"


def write(folder: Path, rows: list[Row], machine: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKDOWN).write_text(markdown(rows, machine))
    found = {"machine": machine, "rows": [asdict(row) for row in rows]}
    (folder / JSON).write_text(json.dumps(found, indent=1) + "\n")


def markdown(rows: list[Row], machine: dict[str, str]) -> str:
    lines = ["# GPU checks", "", "; ".join(f"{name}: {value}" for name, value in machine.items()), ""]
    lines += ["| check | outcome | seconds | figures |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(_cell(text) for text in _cells(row))} |" for row in rows]
    counts = {outcome: sum(row.outcome == outcome for row in rows) for outcome in ("passed", "failed", "not run")}
    return "\n".join([*lines, "", ", ".join(f"{count} {outcome}" for outcome, count in counts.items())]) + "\n"


def _cells(row: Row) -> list[str]:
    outcome = row.outcome + (f": {row.why}" if row.why else "")
    return [row.check, outcome, f"{row.seconds:.1f}", "; ".join(map(str, row.figures))]


def _cell(text: str) -> str:
    """On one line, and without the sign that ends a cell."""
    return " ".join(text.split()).replace("|", "\\|")
