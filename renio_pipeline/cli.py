"""The ``renio`` command. Exit codes: 0 done, 1 the run failed, 2 the input cannot give a run."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from renio_pipeline import control_cli
from renio_pipeline.config import ConfigError, RunConfig, load
from renio_pipeline.schema import Sync


def main(arguments: Sequence[str] | None = None) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    args = _parser().parse_args(arguments)
    try:
        return int(args.run(args))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BaseExceptionGroup as group:
        return _failed(_first(group))
    except Exception as error:
        return _failed(error)


def _first(error: BaseException) -> BaseException:
    notes = [*getattr(error, "__notes__", ())]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
        notes += getattr(error, "__notes__", ())
    error.__notes__ = notes
    return error


def _failed(error: BaseException) -> int:
    if isinstance(error, ConfigError):
        print(f"error: {error}", file=sys.stderr)
        return 2
    if os.environ.get("RENIO_TRACEBACK"):
        raise error
    cause = getattr(error, "cause", None) or error  # of a remote task: the error itself, not Ray's traceback
    where = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
    print(f"error: {where}{type(cause).__name__}: {cause}\n(RENIO_TRACEBACK=1 shows where)", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="renio", description="On-policy distillation with ReNIO sample weights.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", required=True, action="append", help="a YAML file, such as configs/demo.yaml; of several, later ones count"
    )
    common.add_argument("--address", help="a Ray cluster; default: RAY_ADDRESS, or a Ray started for this run")
    common.add_argument("overrides", nargs="*", metavar="key=value", help="override a key, such as steps=10")
    for name, function, text in (
        ("train", _train, "train a student"),
        ("check", _check, "check a configuration, its models, its data and the cluster; start nothing"),
        ("eval", _eval, "accuracy of the student on held-out problems"),
        ("demo", _demo, "train the demo, and fail unless ReNIO's weights do what they should"),
    ):
        command = commands.add_parser(name, parents=[common], help=text, description=text)
        command.set_defaults(run=function)
        if name in ("train", "demo"):
            command.add_argument("--resume", action="store_true", help="go on from the run's newest checkpoint; start if none")
        if name == "check":
            command.add_argument("--offline", action="store_true", help="without a network, a cluster, or the models' weights")
    make = commands.add_parser("make-demo-models", help="train the embedded teacher and student again (minutes)")
    make.add_argument("--out", type=Path, default=Path(__file__).parent / "demo")
    make.add_argument("--seed", type=int, default=0)
    make.set_defaults(run=_make_demo_models)
    control_cli.register(commands)
    return parser


def _check(args: argparse.Namespace) -> int:
    from actors import launch
    from renio_pipeline.preflight import check_run_dir

    config = load(args.config, args.overrides)
    if args.offline:
        return _check_offline(config)
    prepared = launch.prepare_locally(config)
    with launch.cluster(args.address) as found:
        check_run_dir(launch.run_directory(config, found))
        prepared = launch.check(config, prepared)
    print(
        f"{' + '.join(args.config)}: fine. {len(prepared.rows)} training problems, {len(prepared.held_out)} held out; "
        f"vocabulary {prepared.vocab_size}, context {prepared.context} tokens"
    )
    return 0


def _check_offline(config: RunConfig) -> int:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from actors.engine_options import check_engine_options
    from renio_pipeline.preflight import check_offline

    check_engine_options(config)
    missing = check_offline(config)
    demands = ", ".join(f"{name} {pool.replicas} x {pool.gpus:g} GPUs" for name, pool in _pools_of(config).items())
    shared = "; generators and trainer ranks share theirs" if config.placement == "colocated" else ""
    print(f"configuration fine; it asks for {demands}{shared}")
    for name in missing:
        print(f"not here, so not checked: {name}")
    return 0


def _pools_of(config: RunConfig) -> dict[str, Any]:
    return {name: config.pool(name) for name in config.pool_names if name != "weighting"}


def _train(args: argparse.Namespace) -> int:
    _run(load(args.config, args.overrides), args.address, resume=args.resume)
    return 0


def _demo(args: argparse.Namespace) -> int:
    from renio_pipeline.demo_check import faults

    config = load(args.config, args.overrides)
    if not config.evaluate.problems:
        raise ConfigError("evaluate.problems: the demo compares accuracy before and after; set it to 500 or more")
    found = faults(_run(config, args.address, resume=args.resume))
    for fault in found:
        print(f"demo failed: {fault}", file=sys.stderr)
    return 1 if found else 0


def _run(config: RunConfig, address: str | None, *, resume: bool) -> dict[str, Any]:
    from actors import control, launch
    from renio_pipeline.autoscaling import follow_load
    from renio_pipeline.commands import Commands, Events, WithEvents, beside
    from renio_pipeline.metrics import JsonlSink, PrometheusSink
    from renio_pipeline.preflight import check_run_dir
    from renio_pipeline.progress import make_progress
    from renio_pipeline.resume import ResumePoint, resume_point
    from renio_pipeline.run import Run
    from renio_pipeline.rundir import RunDirectory
    from renio_pipeline.stopping import Stop

    if config.run_dir is not None:
        check_run_dir(config, resume=resume)
        if resume:
            resume_point(config)  # so that what cannot go on is refused before Ray starts
    prepared = launch.prepare_locally(config)
    with launch.cluster(address) as found:
        config = launch.run_directory(config, found)
        check_run_dir(config, resume=resume)
        point = resume_point(config) if resume else ResumePoint()
        prepared = launch.check(config, prepared)
        mailbox = launch.claim(config)
        endpoint = [PrometheusSink(config.name, config.metrics_port)] if config.metrics_port else []
        directory, stop, events = RunDirectory(config, point.state), Stop(), Events()
        with make_progress(config.steps) as shown:
            progress = WithEvents(shown, events)
            begun = f", going on after step {point.state.step}" if point.folder else ""
            progress.note(f"run {config.name} in {directory.path}{begun}: starting the engines")

            async def go() -> dict[str, Any]:
                async with launch.stages(config, prepared, point, progress.note) as stages:
                    # Not from the signal's handler itself, which may have come in the middle of a line.
                    loop = asyncio.get_running_loop()
                    stop.arm(config.checkpoint.grace_seconds, lambda text: loop.call_soon_threadsafe(progress.note, text))
                    run = Run(
                        config=config, prepared=prepared, stages=stages, directory=directory, progress=progress,
                        sinks=[JsonlSink(directory.metrics), *endpoint], start=point.state, stop=stop,
                    )  # fmt: skip
                    scalers = (
                        follow_load(name, stages.pools[name], limits, run.gate, progress.note)
                        for name, limits in config.autoscaled.items()
                    )
                    async with beside(control.serve(mailbox, Commands(run, events)), *scalers):
                        return await run.run()

            outcome = asyncio.run(go())
            stop.disarm()
    _summarise(config, directory.path, outcome)
    return outcome


def _summarise(config: RunConfig, path: Path, outcome: dict[str, Any]) -> None:
    from renio_pipeline.evaluate import Evaluation

    found = {step: Evaluation(**values) for step, values in outcome["evaluations"].items()}
    if found:
        print(f"\nheld-out accuracy, sampled at temperature {config.evaluate.temperature:g}, with its 95 % interval")
        print(f"  before  {found[min(found)]}")
        print(f"  after   {found[max(found)]}")
    if outcome["auroc"] is not None:
        print(f"AUROC of the weights as a sign of an answer that is not correct: {outcome['auroc']:.3f}")
    print(f"run directory: {path}")


def _eval(args: argparse.Namespace) -> int:
    from actors import launch
    from renio_pipeline.evaluate import Evaluation, evaluate
    from renio_pipeline.prompts import held_out_prompts

    config = load(args.config, args.overrides)
    # Nothing is trained, so nothing is sent, not even an adapter, and nobody shares the generators' GPUs.
    config = config.model_copy(update={"sync": Sync(), "placement": "separate"})
    if not config.evaluate.problems:
        raise ConfigError("evaluate.problems: 0 leaves nothing to evaluate; set it to a number of held-out problems")
    prepared = launch.prepare_locally(config)
    with launch.cluster(args.address):
        prepared = launch.check(config, prepared, pools=("generator",))
        prompts = held_out_prompts(prepared.held_out_ids, prepared.held_out)
        temperature = config.evaluate.temperature

        async def go() -> Evaluation:
            async with launch.generators(config, prepared) as generators:
                return await evaluate(generators, prompts, prepared.task, prepared.tokenizer, temperature)

        result = asyncio.run(go())
    print(f"{config.student}: accuracy {result}, sampled at temperature {temperature:g}; {result.response_tokens:.1f} tokens")
    return 0


def _make_demo_models(args: argparse.Namespace) -> int:
    from renio_pipeline.demo_models import make_demo_models

    make_demo_models(args.out, seed=args.seed)
    return 0
