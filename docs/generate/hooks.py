"""What MkDocs calls while it builds: pages get what is drawn and listed from the code.

A page says where, by a comment of its own line: ``<!-- generated: keys -->``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import configuration  # noqa: E402
import import_graph  # noqa: E402
import metrics  # noqa: E402
import other_names  # noqa: E402

MARK = re.compile(r"^<!-- generated: ([a-z ]+) -->$", re.MULTILINE)
PARTS: dict[str, Callable[[], str]] = {
    "keys": configuration.page,
    "import graph": lambda: import_graph.picture(import_graph.room_graph(import_graph.module_graph(import_graph.sources()))),
    "rooms": import_graph.rooms_table,
    "metrics": metrics.table,
    "other names": other_names.tables,
    "prompts": lambda: Path(__file__).with_name("prompts.md").read_text(encoding="utf-8"),
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    return MARK.sub(lambda found: PARTS[found[1]](), markdown)
