"""``renio train | check | demo``."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renio_pipeline.cli.common import TAKEOVER, with_config
from renio_pipeline.cli.terminal import aloud, only_the_main_thread
from renio_pipeline.config import ConfigError, RunConfig, load, load_to_resume
from renio_pipeline.config.own import own_copies
from renio_pipeline.visible import visible

if TYPE_CHECKING:
    from actors.cluster.address import Address
    from renio_pipeline.metrics.sink import Sink
    from renio_pipeline.run_dir.checkpoint_files import ResumePoint
    from renio_pipeline.run_dir.fence import Fence


def register(commands: Any) -> None:
    """Add the commands to ``commands``, what ``ArgumentParser.add_subparsers`` returned."""
    for name, function, text in (
        ("train", _train, "train a student"),
        ("check", _check, "check a configuration, its models, its data and the cluster; start nothing"),
        ("demo", _demo, "train the demo, and fail unless ReNIO's weights do what they should"),
    ):
        command = commands.add_parser(name, parents=[with_config()], help=text, description=text)
        command.set_defaults(run=function)
        if name in ("train", "demo"):
            command.add_argument(
                "--resume", action="store_true", help="resume at the newest checkpoint; start if there is none"
            )
            command.add_argument("--takeover", action="store_true", help=TAKEOVER)
        if name == "check":
            command.add_argument("--offline", action="store_true", help="without a network, a cluster, or the models' weights")


def _check(args: argparse.Namespace) -> int:
    from actors.cluster.address import settled
    from renio_pipeline.monitoring.sinks import check_sinks
    from renio_pipeline.preflight.folders import check_run_dir

    config = load(args.config, args.overrides)
    check_sinks(config)
    if args.offline:
        return _check_offline(config)
    address = settled(args.address)  # before Ray is imported
    from actors import run_checks
    from actors.cluster import connection

    prepared = run_checks.prepare_locally(config)
    with connection.connect(address) as cluster:
        check_run_dir(connection.run_directory(config, own=cluster.own))
        prepared = run_checks.check(config, prepared)
    fine = (
        f"{' + '.join(args.config)}: fine. {len(prepared.rows)} training problems, {len(prepared.held_out)} held out; "
        f"vocabulary {prepared.vocab_size}, context {prepared.context} tokens"
    )
    print(visible(fine))
    for note in prepared.notes:
        print(visible(note))
    return 0


def _check_offline(config: RunConfig) -> int:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from actors.engines.options import check_engine_options
    from renio_pipeline.preflight.offline import check_offline

    check_engine_options(config)
    notes, missing = check_offline(config)
    demands = ", ".join(f"{name} {pool.replicas} x {pool.gpus:g} GPUs" for name, pool in _pools_of(config).items())
    shared = "; generators and trainer ranks share theirs" if config.placement == "colocated" else ""
    print(visible(f"configuration fine; it asks for {demands}{shared}"))
    for note in notes:
        print(visible(note))
    for name in missing:
        print(visible(f"not here, so not checked: {name}"))
    return 0


def _pools_of(config: RunConfig) -> dict[str, Any]:
    return {name: config.pool(name) for name in config.pool_names if name != "weighting"}


def _loaded(args: argparse.Namespace) -> RunConfig:
    return (load_to_resume if args.resume else load)(args.config, args.overrides)


def _train(args: argparse.Namespace) -> int:
    _run(_loaded(args), args)
    return 0


def _demo(args: argparse.Namespace) -> int:
    from renio_pipeline.demo.check import faults

    config = _loaded(args)
    if not config.evaluate.problems:
        raise ConfigError("evaluate.problems: the demo compares accuracy before and after; set it to 500 or more")
    found = faults(_run(config, args))
    for fault in found:
        print(visible(f"demo failed: {fault}"), file=sys.stderr)
    return 1 if found else 0


def _run(config: RunConfig, args: argparse.Namespace) -> dict[str, Any]:
    """Run under the lease of the run's directory, of which nothing is read before."""
    from actors.cluster.address import settled
    from renio_pipeline.monitoring.sinks import check_sinks
    from renio_pipeline.preflight.folders import check_run_dir, check_writable
    from renio_pipeline.run_dir import lease
    from renio_pipeline.run_dir.checkpoint_files import ResumePoint
    from renio_pipeline.run_dir.data_record import read_record
    from renio_pipeline.run_dir.resume import resume_point

    check_sinks(config)
    address = settled(args.address)  # before Ray is imported
    from actors.cluster import connection

    config = connection.run_directory(config, own=address is None)
    check_writable(config)
    said: list[str] = []

    def note(text: str) -> None:
        said.append(text)
        print(visible(text), file=sys.stderr, flush=True)

    options = {"key": config.directory_key, "takeover": args.takeover, "silence_seconds": config.faults.lease_seconds}
    with lease.held(config.directory, note=note, **options) as held:
        check_run_dir(config, resume=args.resume)
        point = resume_point(config) if args.resume else ResumePoint()
        for text in own_copies.changes(config.directory, config.own_files):
            note(text)
        record = read_record(config.directory)
        outcome = _drive(config, address, point, record.template_clock if record else None, held.fence, said, args.overrides)
    _summarise(config, config.directory, outcome)
    return outcome


def _drive(
    config: RunConfig,
    address: Address | None,
    point: ResumePoint,
    clock: str | None,
    fence: Fence,
    said: list[str],
    overrides: Sequence[str],
) -> dict[str, Any]:
    """Run from ``point``.

    Args:
        clock: the time that the chat template was told until now; None: it was told none.
        said: what the user was told already, for the log.
        overrides: those of the command line, for trackers.
    """
    from actors import launch, run_checks
    from actors.cluster import connection
    from actors.cluster.head_watch import watched_head
    from actors.control import mailbox
    from renio_pipeline.cli.garbage import spare_all_so_far
    from renio_pipeline.control.autoscaler import follow_load
    from renio_pipeline.control.commands import Commands, Events, WithEvents, in_background
    from renio_pipeline.loop.run import Run
    from renio_pipeline.loop.shutdown import Stop
    from renio_pipeline.monitoring.console import make_progress
    from renio_pipeline.monitoring.prometheus import PrometheusSink
    from renio_pipeline.monitoring.sinks import file_sinks
    from renio_pipeline.monitoring.trackers.sink import until_the_end
    from renio_pipeline.preflight import settled
    from renio_pipeline.run_dir.data_record import write_stretch
    from renio_pipeline.run_dir.directory import RunDirectory
    from renio_pipeline.run_dir.run_log import RunLog
    from renio_pipeline.run_dir.starts import record_start

    locally = run_checks.prepare_locally(config, clock)
    if locally is not None:
        locally = settled(config, locally, point)  # so that other data is refused before Ray starts
    with connection.connect(address) as cluster:
        prepared = run_checks.check(config, locally, clock)
        if locally is None:
            prepared = settled(config, prepared, point)
        control = mailbox.claim(config.name, str(config.directory.absolute()))
        endpoint = [PrometheusSink(config, cluster.host, point.state.step)] if config.metrics_port is not None else []
        directory, stop = RunDirectory(config, point.state, fence), Stop()
        record_start(directory.path, point.state.step, sys.argv, overrides, fence)
        write_stretch(directory.path, config.data, prepared.stretch, prepared.clock, fence)
        log = RunLog(directory.path / "log.txt", fence)
        with log, make_progress(config.steps) as shown, only_the_main_thread(log.path):
            events = Events(log.note)
            progress = WithEvents(shown, events)
            for note in said:
                log.note(note)
            begun = f", resuming after step {point.state.step}" if point.folder else ""
            for note in prepared.notes:
                progress.note(note)
            progress.note(f"run {config.name} in {directory.path}{begun}: starting the engines")
            for sink in endpoint:
                progress.note(f"metrics at http://{sink.address}/metrics, those of the engines at /engines")

            async def go() -> dict[str, Any]:
                loop = asyncio.get_running_loop()

                def note(text: str) -> None:
                    """From a signal's handler, which may come in the middle of a line, or from another thread, whose output the
                    terminal would not show."""
                    try:
                        loop.call_soon_threadsafe(progress.note, text)
                    except RuntimeError:  # the loop has ended
                        log.note(text)

                sinks = [*file_sinks(config, directory, point.state.step, note, overrides), *endpoint]
                with until_the_end(sinks):
                    return await steps(sinks, note)

            async def steps(sinks: list[Sink], note: Callable[[str], None]) -> dict[str, Any]:
                async with launch.stages(config, prepared, point, progress.note, fence) as stages:
                    stop.arm(config.checkpoint.grace_seconds, note)
                    run = Run(
                        config=config,
                        prepared=prepared,
                        stages=stages,
                        directory=directory,
                        progress=progress,
                        sinks=sinks,
                        start=point.state,
                        stop=stop,
                    )
                    scalers = (
                        follow_load(name, stages.pools[name], limits, run.pause, progress.note)
                        for name, limits in config.autoscaled.items()
                    )
                    watched = (sink.serve(run) for sink in endpoint)
                    spare_all_so_far()
                    async with in_background(mailbox.serve(control, Commands(run, events)), *scalers, *watched):
                        return await run.run()

            def warn(text: str) -> None:
                """From a thread, also while the event loop is blocked."""
                log.note(text)
                with aloud():
                    shown.note(text)

            with watched_head(cluster.head, warn):
                outcome = asyncio.run(go())
            stop.disarm()
    return outcome


def _summarise(config: RunConfig, path: Path, outcome: dict[str, Any]) -> None:
    from renio_pipeline.types import Evaluation

    found = {step: Evaluation(**values) for step, values in outcome["evaluations"].items()}
    if found:
        print(visible(f"\nheld-out accuracy, sampled at temperature {config.evaluate.temperature:g}, with its 95 % interval"))
        print(visible(f"  before  {found[min(found)]}\n  after   {found[max(found)]}"))
    if outcome["auroc"] is not None:
        print(visible(f"AUROC of the weights as a sign of an answer that is not correct: {outcome['auroc']:.3f}"))
    print(visible(f"run directory: {path}"))
