"""``renio plan``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from renio_pipeline.cli.common import path
from renio_pipeline.config import ConfigError, load


def register(commands: Any) -> None:
    """Add the command to ``commands``, what ``ArgumentParser.add_subparsers`` returned."""
    text = "what a run will take: memory, step time, idle shares, and the best split of the GPUs; starts nothing"
    plan = commands.add_parser("plan", help=text, description=text[0].upper() + text[1:] + ".")
    plan.add_argument("--config", action="append", default=[], help="a YAML file; of several, later ones count")
    plan.add_argument("things", nargs="*", metavar="CONFIG | key=value", help="a YAML file too, or a key to override")
    plan.add_argument("--gpus", type=float, metavar="N", help="GPUs to share out; default: those of the configured pools")
    plan.add_argument("--gpus-per-node", type=int, default=8, metavar="N", help="a replica lies on one node (8)")
    plan.add_argument("--device", metavar="NAME", help="estimate from its data sheet, and hold its memory: h100, a100, ...")
    plan.add_argument("--from", dest="run_", type=path, metavar="RUN", help="rates and lengths measured in a run's directory")
    plan.add_argument("--rates", type=path, metavar="FILE", help="rates and lengths of your own, before all others")
    plan.add_argument("--offline", action="store_true", help="ask no hub for a model's configuration")
    plan.add_argument("--json", action="store_true", help="for programs: seconds, bytes, shares")
    plan.set_defaults(run=_plan)


def _plan(args: argparse.Namespace) -> int:
    from renio_pipeline.planning.known import Sources, gather
    from renio_pipeline.planning.plan import Planner, check

    paths = [*args.config, *(thing for thing in args.things if "=" not in thing)]
    if not paths:
        raise ConfigError("--config: no configuration is named; give a YAML file, such as configs/gpu.yaml")
    for option, value in (("--gpus", args.gpus), ("--gpus-per-node", args.gpus_per_node)):
        if value is not None and not value >= 1:
            raise ConfigError(f"{option}: {value:g} given, but at least 1 is needed")
    config = load(paths, [thing for thing in args.things if "=" in thing])
    if config.recorded_teachers:
        key = config.teacher_key(next(iter(config.recorded_teachers)), "type")
        raise ConfigError(
            f"{key}: renio plan shares GPUs out among generators, teachers and trainers, and with a recording trainers alone "
            "are at work: give them all GPUs (pools.trainer), or plan the live run, with the teacher's own type"
        )
    sources = Sources(
        device=args.device, run=args.run_, rates=args.rates, offline=args.offline, gpus_per_node=args.gpus_per_node
    )
    planner = Planner(config, gather(config, sources), args.gpus, args.gpus_per_node)
    check(planner)
    if args.json:
        from renio_pipeline.planning.view import plan_json

        print(json.dumps(plan_json(planner), indent=1))
    else:
        from rich.console import Console

        from renio_pipeline.planning.view import plan_view

        Console().print(plan_view(planner))
    return 0
