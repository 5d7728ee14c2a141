"""``renio doctor``. Exit codes: 0 all is well, with warnings perhaps; 2 a fault was found, or the input is bad."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renio_pipeline.cli.common import path_text, seconds, with_config
from renio_pipeline.config import ConfigError, RunConfig, load
from renio_pipeline.control.protocol import Unanswered

if TYPE_CHECKING:
    from actors.cluster.address import Address


def register(commands: Any) -> None:
    """Add the command to ``commands``, what ``ArgumentParser.add_subparsers`` returned."""
    text = "examine every node of a cluster before the first run: versions, GPUs, memory, run directory, ports, NCCL"
    doctor = commands.add_parser(
        "doctor", parents=[with_config(required=False)], help=text, description=text[0].upper() + text[1:] + "."
    )
    doctor.add_argument(
        "--run-dir", type=path_text, metavar="DIR", help="a run's own directory; default: that of the configuration"
    )
    doctor.add_argument("--json", action="store_true", help="for programs: every fact and finding, as one JSON object")
    doctor.add_argument(
        "--timeout", type=seconds, default=60.0, metavar="SECONDS", help="how long a node may take to answer (%(default)g)"
    )
    doctor.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    if args.overrides and not args.config:
        raise ConfigError(f"--config: none is given, so that {args.overrides[0]!r} overrides nothing")
    config = load(args.config, args.overrides) if args.config else None
    from actors.cluster.address import settled

    address = settled(args.address)
    from actors.doctor.survey import Question, examine
    from renio_pipeline.doctor.examination import findings
    from renio_pipeline.doctor.requirements import requirements
    from renio_pipeline.doctor.view import as_json, healthy, show

    required = requirements()
    try:
        # Ray prints what it notices, such as a node that dies, and the output is for programs.
        with redirect_stdout(sys.stderr), _joined(address, args.timeout):
            folder = _folder(config, args.run_dir, running=address is not None)
            cluster = examine(Question(config=config, folder=folder, required=required, seconds=args.timeout))
    except Unanswered:
        assert address is not None, "a Ray of its own is not waited for"
        raise ConfigError(
            f"{address.key}: the Ray cluster at {address} did not let this process in within {args.timeout:g} s; run this on "
            "one of its nodes, or raise --timeout"
        ) from None
    found = findings(cluster, required)
    if args.json:
        print(json.dumps(as_json(cluster, found), indent=1))
    else:
        show(found)
    return 0 if healthy(found) else 2


def _joined(address: Address | None, timeout: float) -> AbstractContextManager[object]:
    """The cluster at ``address``, or a Ray of one's own, as a run would start it."""
    from actors.cluster import connection
    from actors.control import attach

    if address is None:
        return connection.connect(None)
    return attach.guest(address.text, time.monotonic() + timeout)


def _folder(config: RunConfig | None, given: str | None, *, running: bool) -> str | None:
    """The absolute path of the run directory, as a run would settle it; None: not known."""
    from actors.cluster.connection import run_directory

    if config is None and given is None:
        return None
    if config is None:
        path = Path(str(given))
        if running and not path.is_absolute():
            raise ConfigError(f"--run-dir: {given!r} must be an absolute path that every node sees, on a running cluster")
        return str(path.absolute())
    config = config if given is None else config.model_copy(update={"run_dir": given})
    return str(run_directory(config, own=not running).directory.absolute())
