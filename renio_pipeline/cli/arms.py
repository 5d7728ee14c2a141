"""``renio arms``."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renio_pipeline.cli.common import TAKEOVER, count, path
from renio_pipeline.cli.terminal import say
from renio_pipeline.config import ConfigError
from renio_pipeline.config.off_policy import check_all_by_student
from renio_pipeline.config.teacher_writing import check_no_analyses
from renio_pipeline.config.teachers.recorded_teachers import check_live
from renio_pipeline.visible import visible

if TYPE_CHECKING:
    from renio_pipeline.arms.arm import Arm
    from renio_pipeline.arms.sequential import Look
    from renio_pipeline.preflight import Prepared


def register(commands: Any) -> None:
    """Add the command to ``commands``, what ``ArgumentParser.add_subparsers`` returned."""
    text = "short paired runs that differ in a few keys: which of them teaches more"
    command = commands.add_parser("arms", help=text, description=text[0].upper() + text[1:] + ".")
    command.add_argument(
        "things", nargs="*", metavar="CONFIG | key=value", help="a YAML file, or a key to override in all arms"
    )
    command.add_argument("--config", action="append", default=[], help="a YAML file too; of several, later ones count")
    text = "an arm, repeatedly, as in --arm uniform: weighting.type=uniform"
    command.add_argument("--arm", nargs="+", action="append", default=[], metavar=("NAME:", "key=value"), help=text)
    command.add_argument("--steps", type=count, default=50, metavar="N", help="steps of each run (50)")
    command.add_argument("--seeds", type=count, default=2, metavar="N", help="runs of each arm, at most (2)")
    command.add_argument(
        "--out", type=path, metavar="DIR", help="the race's folder; the same one again goes on; default: RUN-arms"
    )
    command.add_argument("--address", help="a Ray cluster; default: RAY_ADDRESS, or a Ray started for this race")
    command.add_argument("--takeover", action="store_true", help=TAKEOVER)
    command.set_defaults(run=_arms)


def _arms(args: argparse.Namespace) -> int:
    from actors.cluster.address import settled
    from renio_pipeline.arms import results
    from renio_pipeline.arms.arm import arms_of
    from renio_pipeline.arms.race import from_disk
    from renio_pipeline.evaluation.table import show
    from renio_pipeline.run_dir import lease

    files = [*args.config, *(thing for thing in args.things if "=" not in thing)]
    if not files:
        raise ConfigError("CONFIG: no configuration is named; give a YAML file, such as configs/demo.yaml")
    arms = arms_of(files, [thing for thing in args.things if "=" in thing], args.arm)
    for arm in arms:
        check_all_by_student(arm.config, "renio arms")
        check_no_analyses(arm.config, "renio arms")
        check_live(arm.config, "renio arms")
    if not arms[0].config.evaluate.problems:
        raise ConfigError("evaluate.problems: 0 leaves no held-out problems to compare the arms on; set it to 500 or more")
    address = settled(args.address)  # before Ray is imported
    from actors.cluster import connection

    common = connection.run_directory(arms[0].config, own=address is None)
    folder: Path = args.out or common.directory.with_name(f"{common.directory.name}-arms")
    race = results.asked(arms, args.steps)
    with lease.held(folder, key="--out", takeover=args.takeover, note=print):
        results.begin(folder, race)
        looks = from_disk(arms, folder, seeds=args.seeds)
        if looks is None:
            looks = _race(args, arms, race, folder, address)
        else:
            print("every run of this race is done already")
            show(results.look_table(looks[-1]))
        results.write(folder, race, looks)
    for line in results.verdict(looks[-1], arms, args.seeds):
        print(visible(line))
    print(visible(f"results: {folder}"))
    return 0


def _race(args: argparse.Namespace, arms: list[Arm], race: dict[str, Any], folder: Path, address: Any) -> list[Look]:
    from actors import run_checks
    from actors.arms import kept_engines
    from actors.cluster import connection
    from actors.cluster.head_watch import watched_head
    from renio_pipeline.arms import results
    from renio_pipeline.arms.race import race as run_race
    from renio_pipeline.evaluation.table import show
    from renio_pipeline.monitoring.console import make_progress

    config, looks = arms[0].config, []
    for arm in arms[1:]:  # an arm that needs verdicts finds rows without them now, not when its turn comes
        run_checks.prepare_locally(arm.config)
    prepared: Prepared | None = run_checks.prepare_locally(config)
    then = "Then give the same command again, if need be in another cluster: it goes on after the runs that are done"
    with connection.connect(address) as cluster, watched_head(cluster.head, say, then):
        prepared = run_checks.check(config, prepared)

        async def go(prepared: Prepared) -> None:
            with make_progress(args.steps) as progress:
                async with kept_engines(config, prepared, progress.note) as open_stages:
                    sizes = {"seeds": args.seeds, "steps": args.steps}
                    async for look in run_race(open_stages, arms, prepared, folder, progress=progress, **sizes):
                        looks.append(look)
                        results.write(folder, race, looks)
                        show(results.look_table(look))

        asyncio.run(go(prepared))
    return looks
