"""``renio report``."""

from __future__ import annotations

import argparse
from typing import Any

from renio_pipeline.cli.common import path
from renio_pipeline.visible import visible


def register(commands: Any) -> None:
    """Add the command to ``commands``, what ``ArgumentParser.add_subparsers`` returned."""
    text = "one page that shows what a run did, or several beside each other"
    report = commands.add_parser("report", help=text, description=text[0].upper() + text[1:] + ".")
    report.add_argument("runs", nargs="+", type=path, metavar="RUN", help="a run's directory; it may still be running")
    report.add_argument("--out", type=path, metavar="FILE.html", help="default: RUN/report.html; needed for several runs")
    report.add_argument("--steps", metavar="1,10,50-52", help="whose responses to hold; default: as many as a page can bear")
    report.add_argument("--png", action="store_true", help="also write the plots, in a folder beside the page")
    report.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    from renio_pipeline.report import write_report
    from renio_pipeline.report.choice import parse_steps

    written = write_report(args.runs, args.out, steps=parse_steps(args.steps) if args.steps else (), png=args.png)
    for page in written:
        print(visible(str(page)))
    return 0
