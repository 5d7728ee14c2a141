"""``renio status | scale | pause | resume | checkpoint | stop``: commands for a run that is live, from another process.

Exit codes: 0 done; 2 bad input, no such run, no cluster, or the driver refused; 1 the driver did not answer in time.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from typing import Any

from rich.console import Console

from renio_pipeline.cli.common import seconds
from renio_pipeline.config import ConfigError
from renio_pipeline.control.protocol import Ended, Refused, Unanswered, parse_sizes
from renio_pipeline.control.status_view import reply_lines, status_view
from renio_pipeline.visible import visible

HELP = {
    "status": "where a live run is: pools, step, figures, events",
    "scale": "give a live run's pools other sizes; answers when they are taken on, and engines may still be starting",
    "pause": "drain a live run and hold it; answers when nothing is in flight",
    "resume": "let a paused run continue; a run that has ended is resumed with train --resume instead",
    "checkpoint": "have a live run write a checkpoint; answers when it is written",
    "stop": "end a live run after its step, with a checkpoint",
}


def register(commands: Any) -> None:
    """Add the commands to ``commands``, what ``ArgumentParser.add_subparsers`` returned."""
    for verb, text in HELP.items():
        command = commands.add_parser(verb, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument("--run", dest="name", metavar="NAME", help="the run's name; needed where several are live")
        command.add_argument(
            "--address",
            help="HOST:PORT of its Ray cluster, from one of its nodes, or ray://HEAD:10001 from elsewhere; "
            "default: RAY_ADDRESS, or the clusters on this machine",
        )
        command.add_argument("--json", action="store_true", help="print the answer as one JSON object")
        command.add_argument(
            "--timeout",
            type=seconds,
            metavar="SECONDS",
            default=10.0 if verb == "status" else 600.0,
            help="how long to wait for the answer (default %(default)g)",
        )
        if verb == "scale":
            command.add_argument("sizes", nargs="+", metavar="POOL=REPLICAS", help="such as generator=4 or teacher.maths=2")
        if verb == "status":
            command.add_argument("--watch", type=seconds, metavar="SECONDS", help="show it again so often, until the run ends")
        command.set_defaults(run=_main, verb=verb)


def _main(args: argparse.Namespace) -> int:
    arguments = parse_sizes(args.sizes) if args.verb == "scale" else {}
    watch = getattr(args, "watch", None)
    if watch and args.json:
        raise ConfigError("--watch shows many answers, and --json prints one; give one of the two")
    from actors.control import clusters, live_runs

    deadline = time.monotonic() + args.timeout
    try:
        with live_runs.joined(args.name, clusters.addresses(args.address), deadline) as run:
            if watch:
                return _watch(run, watch, args.timeout)
            _show(run, args.verb, live_runs.ask(run, args.verb, arguments, deadline - time.monotonic()), as_json=args.json)
    except Refused as error:
        raise ConfigError(str(error)) from None
    except Unanswered as error:
        print(visible(f"error: {error}"), file=sys.stderr)
        return 1
    return 0


def _watch(run: str, every: float, timeout: float) -> int:
    """Show the status ``every`` so many seconds, until the run has ended or does not answer in time."""
    from actors.control import live_runs

    console = Console(highlight=False)
    while True:
        try:
            status = live_runs.ask(run, "status", {}, timeout)
        except Ended as error:
            console.print(visible(str(error)), markup=False)
            return 0
        console.clear()
        console.print(status_view(status))
        time.sleep(every)


def _show(run: str, verb: str, reply: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(plain(reply)))
    elif verb == "status":
        Console(highlight=False).print(status_view(reply))
    else:
        print(visible("\n".join(reply_lines(run, verb, reply))))


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: numbers that are not finite become null, NumPy's become Python's."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
