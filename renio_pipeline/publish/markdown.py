"""Texts of other origin within Markdown: nothing in them is markup, ends a table's cell, or leaves a block of code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def plain(text: object) -> str:
    """``text`` on one line, every mark of Markdown and HTML escaped."""
    line = " ".join(str(text).split())
    escaped = re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", line)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("://", ":&#47;&#47;")


def code_block(text: str, language: str = "") -> str:
    """``text`` as a block of code, whose fence is longer than any within."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; its cells are escaped."""
    lines = [head, ["---"] * len(head), *([plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
