"""``renio eval``."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renio_pipeline.cli.common import count, path, path_text, with_config
from renio_pipeline.cli.terminal import say
from renio_pipeline.config import ConfigError, RunConfig, load
from renio_pipeline.config.paths import home
from renio_pipeline.visible import visible

if TYPE_CHECKING:
    from renio_pipeline.evaluation.asking import Asked
    from renio_pipeline.evaluation.compare import Comparison
    from renio_pipeline.evaluation.markers import Markers
    from renio_pipeline.evaluation.models import Located
    from renio_pipeline.evaluation.records import Problem
    from renio_pipeline.evaluation.results import Results
    from renio_pipeline.evaluation.sets import DataSet


def register(commands: Any) -> None:
    """Add the command to ``commands``, what ``ArgumentParser.add_subparsers`` returned."""
    text = "how well models answer held-out problems and benchmarks, and whether one is better than another"
    command = commands.add_parser(
        "eval", parents=[with_config(required=False)], help=text, description=text[0].upper() + text[1:] + "."
    )
    for option, metavar, text in (
        (
            "model",
            "[NAME=]MODEL",
            "a folder, a hub name, a run, checkpoint or LoRA adapter, repeatedly; default: the student",
        ),
        ("suite", "NAME[=PATH]", "a benchmark, from the hub or from a copy, repeatedly"),
        ("data", "[NAME=]PATH", "problems of yours, with the configuration's task, repeatedly"),
    ):
        command.add_argument(f"--{option}", action="append", default=[], metavar=metavar, help=text)
    text = "settings and suites of a publication, which key=value still overrides; paper: ReNIO's, for mathematics"
    command.add_argument("--suite-preset", choices=["paper"], help=text)
    command.add_argument("--samples", type=count, metavar="N", help="responses a problem; default: the suite's number, else 1")
    command.add_argument("--k", type=_counts, metavar="K,K", help="of pass@k; default: N")
    command.add_argument("--problems", type=count, metavar="N", help="only the first N problems of each data set")
    command.add_argument("--out", type=path, metavar="DIR", help="where the results go; default: evals/NAME-TIME")
    text = "a paired test of two of the models; without --config: of two folders that were written before"
    command.add_argument("--compare", nargs=2, type=path_text, metavar=("A", "B"), help=text)
    command.set_defaults(run=_eval)


def _counts(text: str) -> list[int]:
    return sorted({count(part.strip()) for part in text.split(",")})


def _eval(args: argparse.Namespace) -> int:
    if not args.config:
        return _compare_folders(args)
    from renio_pipeline.evaluation.asking import alone
    from renio_pipeline.evaluation.markers import Markers
    from renio_pipeline.evaluation.models import locate, named
    from renio_pipeline.evaluation.sets import data_sets
    from renio_pipeline.evaluation.suites import PRESETS

    preset = [PRESETS / f"{args.suite_preset}.yaml"] if args.suite_preset else []
    config = alone(load([*args.config, *preset], args.overrides))
    given = named(args.model, "--model") or {"student": config.student}
    key = "--model" if args.model else "student"
    models = {name: locate(value, key) for name, value in given.items()}
    if unknown := [name for name in args.compare or () if name not in models]:
        raise ConfigError(f"--compare: {unknown[0]!r} is none of this evaluation's models: {', '.join(models)}")
    markers = Markers.read(config.evaluate.markers)
    sets = data_sets(config, args.suite, args.data, samples=args.samples, limit=args.problems)
    if few := [(k, s) for s in sets for k in args.k or () if k > s.samples]:
        raise ConfigError(f"--k: pass@{few[0][0]} needs as many --samples, and {few[0][1].name} has {few[0][1].samples}")
    for note in (note for s in sets for note in s.notes):
        print(visible(note))
    results = _evaluate(args, config, models, sets, markers)
    if args.compare:
        a, b = args.compare
        results.compared(_compare((a, results.problems[a]), (b, results.problems[b]), seed=config.seed))
    print(visible(f"results: {results.folder}"))
    return 0


def _evaluate(
    args: argparse.Namespace, config: RunConfig, models: dict[str, Located], sets: Sequence[DataSet], markers: Markers
) -> Results:
    """Load one model after the other into the generator pool, and print the table."""
    from actors.cluster.address import settled

    address = settled(args.address)  # before Ray is imported
    from actors import launch, run_checks
    from actors.cluster import connection
    from actors.cluster.head_watch import watched_head
    from actors.engines.options import check_engine_options
    from renio_pipeline.data.template_clock import TemplateClock
    from renio_pipeline.evaluation.answers import answer_all
    from renio_pipeline.evaluation.asking import ask
    from renio_pipeline.evaluation.results import Results
    from renio_pipeline.evaluation.table import results_table, show
    from renio_pipeline.models.info import is_local

    check_engine_options(config)
    # What can be found wrong before Ray starts: all but models of the hub, which are read on a node that will load them.
    key = "--model" if args.model else "student"
    clock = TemplateClock()  # one for all models
    asked = {
        name: ask(config, name, model, sets, key=key, clock=clock) for name, model in models.items() if is_local(model.model)
    }
    folder = args.out or _folder(config, running=address is not None)
    results = Results(folder, config, {name: str(model) for name, model in models.items()}, sets, args.k or ())

    def finished(model: str, data: DataSet, problems: list[Problem]) -> None:
        if left_out := len(data.rows) - len(problems):
            text = f"{model}: {left_out} problems of {data.name} are left out: a response of theirs killed its generators"
            print(visible(text))
        if problems:
            results.add(model, data, problems)

    async def one(found: Asked) -> None:
        for note in found.notes:
            print(visible(note))
        async with launch.generators(found.config, found, found.adapter) as generators:
            with _progress(found) as came:
                await answer_all(generators, found, markers, partial(finished, found.name), came)

    with connection.connect(address) as cluster, watched_head(cluster.head, say, "Then evaluate again"):
        run_checks.check_generators(config)
        for name, model in models.items():
            if name not in asked:
                asked[name] = ask(config, name, model, sets, partial(run_checks.inspect_on_cluster, config), key, clock)
        for name in models:
            asyncio.run(one(asked[name]))
    show(results_table(results))
    return results


def _folder(config: RunConfig, *, running: bool) -> Path:
    """Below the working directory; but of a job on a running cluster that is a copy, which may be evicted."""
    return (home() / "renio-evals" if running else Path("evals")) / f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"


@contextmanager
def _progress(asked: Asked) -> Iterator[Callable[[], None]]:
    """A bar of the responses that have come, on a terminal; what it yields is called for each."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"{asked.name}: responses", total=sum(map(len, asked.prompts)))
        yield lambda: progress.advance(bar)


Side = tuple[str, Mapping[str, Sequence["Problem"]]]


def _compare(a: Side, b: Side, *, seed: int = 0) -> list[Comparison]:
    """Print the paired test of two models' results."""
    from renio_pipeline.evaluation.compare import compare
    from renio_pipeline.evaluation.table import comparison_table, show

    found = compare(a[1], b[1], (a[0], b[0]), seed=seed)
    show(comparison_table(found))
    return found


def _compare_folders(args: argparse.Namespace) -> int:
    if not args.compare:
        raise ConfigError("--config is required: a YAML file, such as configs/demo.yaml (or --compare two folders of results)")
    for option in ("model", "suite", "suite_preset", "data", "samples", "k", "problems", "out", "overrides"):
        if getattr(args, option):
            raise ConfigError(
                f"--compare without --config compares what is there, and takes no {option.replace('_', '-')}; give --config too"
            )
    from renio_pipeline.evaluation.results import read_results

    a, b = map(read_results, args.compare)
    if a[0] == b[0]:  # a model's name in two evaluations
        a, b = (args.compare[0], a[1]), (args.compare[1], b[1])
    _compare(a, b)
    return 0
