"""The findings as a table in a terminal, as plain lines in a file or pipe, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from renio_pipeline.doctor.facts import Cluster, NodeFacts
from renio_pipeline.doctor.findings import Finding, Level

STYLES: dict[Level, str] = {"ok": "green", "warning": "yellow", "fault": "bold red"}
HEADINGS = ("node", "check", "result", "what was seen")
COUNTED: dict[Level, str] = {"fault": "what must be fixed", "warning": "what should be checked"}


def healthy(found: Sequence[Finding]) -> bool:
    """Whether a run may start: there is no fault, though there may be warnings."""
    return all(finding.level != "fault" for finding in found)


def show(found: Sequence[Finding], console: Console | None = None) -> None:
    """Print the table, followed by advice on each fault and warning."""
    console = console or Console(highlight=False)
    if console.is_terminal:
        console.print(_table(found))
    else:  # one line per row, so that it can be searched
        console.print("\n".join(_lines(found)), markup=False, soft_wrap=True)
    for level, heading in COUNTED.items():
        concerned = [finding for finding in found if finding.level == level]
        if concerned:
            console.print(Text(f"\n{heading}:", STYLES[level]))
        for finding in concerned:
            console.print(Text(f"  {finding.node}: {finding.check}: {finding.advice}"), soft_wrap=True)
    console.print(Text(f"\n{verdict(found)}"))


def _table(found: Sequence[Finding]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in HEADINGS[:-1]:
        table.add_column(heading, no_wrap=True)
    table.add_column(HEADINGS[-1], overflow="fold")
    for finding in found:
        table.add_row(finding.node, finding.check, Text(finding.level, STYLES[finding.level]), Text(finding.seen))
    return table


def _lines(found: Sequence[Finding]) -> list[str]:
    rows = [HEADINGS, *((finding.node, finding.check, finding.level, finding.seen) for finding in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[3]]) for row in rows]


def verdict(found: Sequence[Finding]) -> str:
    nodes = len({finding.node for finding in found})
    if healthy(found):
        warnings = sum(finding.level == "warning" for finding in found)
        return f"no faults on {nodes} node{'s' * (nodes > 1)}" + (f", {warnings} to check" if warnings else "")
    sick = list(dict.fromkeys(finding.node for finding in found if finding.level == "fault"))
    faults = sum(finding.level == "fault" for finding in found)
    return f"{faults} fault{'s' * (faults > 1)} on {', '.join(sick)}; a run could fail there"


def as_json(cluster: Cluster, found: Sequence[Finding]) -> dict[str, Any]:
    """The findings for programs: sizes in bytes, times in seconds. A node that did not answer has ``facts`` null."""
    facts = {id: asdict(each) for id, each in cluster.facts.items() if isinstance(each, NodeFacts)}
    return {
        "healthy": healthy(found),
        "findings": [asdict(finding) for finding in found],
        "nodes": [
            {**asdict(node), "packages": sorted(node.packages), "facts": facts.get(node.id)} for node in cluster.nodes
        ],
        "collectives": [asdict(each) for each in cluster.collectives],
    }  # fmt: skip
