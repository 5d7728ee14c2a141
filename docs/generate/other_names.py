"""The tables of what other frameworks' keys are called here, as Markdown.

python docs/generate/other_names.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from renio_pipeline.config.other_names import FRAMEWORKS


def tables() -> str:
    """One table a framework."""
    parts = []
    for framework, names in FRAMEWORKS.items():
        rows = [f"| `{theirs}` | {_shown(ours)} |" for theirs, ours in names.items()]
        parts.append("\n".join([f"### {framework}", "", f"| {framework} | here |", "| --- | --- |", *rows]))
    return "\n\n".join(parts)


def _shown(ours: str) -> str:
    return ours if " " in ours and not ours.startswith("renio ") else f"`{ours}`"


if __name__ == "__main__":
    print(tables())
