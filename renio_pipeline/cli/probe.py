"""``renio probe``."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renio_pipeline.cli.common import count, path, with_config
from renio_pipeline.cli.terminal import say
from renio_pipeline.config import RunConfig, load
from renio_pipeline.config.combining import check_one_each
from renio_pipeline.config.off_policy import check_all_by_student
from renio_pipeline.config.own_tokenizers import check_same_tokenizers
from renio_pipeline.config.teacher_writing import check_no_analyses
from renio_pipeline.visible import visible

if TYPE_CHECKING:
    from renio_pipeline.preflight import Prepared
    from renio_pipeline.probe.results import Report
    from renio_pipeline.probe.run import Examined, Size


def register(commands: Any) -> None:
    """Add the command to ``commands``, what ``ArgumentParser.add_subparsers`` returned."""
    text = "what a teacher would teach a student, and which weighting that speaks for; trains nothing"
    command = commands.add_parser("probe", parents=[with_config()], help=text, description=text[0].upper() + text[1:] + ".")
    for option, default, text in (
        ("responses", 256, "responses of the student"),
        (
            "prefixes",
            40,
            "responses from which a teacher goes on: of the heaviest wrong ones, of other wrong ones, of right ones",
        ),
        ("continuations", 4, "continuations from each point of each of them"),
    ):
        command.add_argument(f"--{option}", type=count, default=default, metavar="N", help=f"{text} ({default})")
    text = "leave out the trainer's forward pass: no mismatch, no loss; for students that need several GPUs to train"
    command.add_argument("--without-trainer", action="store_true", help=text)
    command.add_argument("--out", type=path, metavar="DIR", help="where the results go; default: RUN/probes/TIME")
    command.add_argument("--json", action="store_true", help="for programs: what probe.json has")
    command.set_defaults(run=_probe)


def _probe(args: argparse.Namespace) -> int:
    from actors.cluster.address import settled
    from renio_pipeline.evaluation.results import check_new
    from renio_pipeline.preflight.folders import PROBES, check_writable
    from renio_pipeline.probe.results import CONTINUATIONS, write_report
    from renio_pipeline.probe.run import Size
    from renio_pipeline.probe.setting import probing
    from renio_pipeline.run_dir.checkpoint_files import write_durably

    began = time.monotonic()
    given = load(args.config, args.overrides)
    config, notes = probing(given)
    check_all_by_student(config, "renio probe")
    check_no_analyses(config, "renio probe")
    check_one_each(config, "renio probe")
    check_same_tokenizers(config, "renio probe")
    address = settled(args.address)  # before Ray is imported
    from actors import probing as engines
    from actors import run_checks
    from actors.cluster import connection
    from actors.cluster.head_watch import watched_head

    config = connection.run_directory(config, own=address is None)
    folder: Path = args.out or config.directory / PROBES / time.strftime("%Y%m%d-%H%M%S")
    check_new(folder) if args.out else check_writable(config)
    prepared = run_checks.prepare_locally(config)
    size = Size(responses=args.responses, prefixes=args.prefixes, continuations=args.continuations)
    with connection.connect(address) as cluster, watched_head(cluster.head, say, "Then probe again: nothing of it is kept"):
        prepared = engines.check(config, prepared)
        for note in prepared.notes:
            say(note)
        found = asyncio.run(_run(config, prepared, size, forward=not args.without_trainer))
    report = _report(given, config, found, notes, seconds=time.monotonic() - began, forward=not args.without_trainer)
    write_report(report, folder)
    write_durably(folder / CONTINUATIONS, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in found.records))
    if args.json:
        print(json.dumps(asdict(report), indent=1))
    else:
        _show(report)
        print(visible(f"results: {folder}"))
    return 0


async def _run(config: RunConfig, prepared: Prepared, size: Size, *, forward: bool) -> Examined:
    from actors import probing as engines
    from renio_pipeline.data.prompts import Cursor
    from renio_pipeline.grading.grader import Grader
    from renio_pipeline.probe.run import examine, respond, score

    context = engines.teachers_context(config, prepared)
    cursor = Cursor(prepared.prompt_ids, prepared.rows, config, teacher_ids=prepared.teacher_ids, stretch=prepared.stretch)
    prompts = cursor.take(size.responses)
    say("starting the engines")
    async with (
        Grader(prepared.task, prepared.tokenizer) as grader,
        engines.engines(config, prepared, context=context, forward=forward, note=say) as started,
    ):
        say(f"the student writes {size.responses} responses")
        judged = await respond(started.generators, prompts, grader.judge, config)
        await started.generated()
        say("the teacher scores them")
        stage = started.forward
        responses = await score(
            started.teachers, started.budget, judged, config, stage.forward if stage else None, task=prepared.task
        )
        say("the teacher answers, and goes on from the student's responses")
        return await examine(started.teachers, grader.judge, responses, config, context=context, size=size)


def _report(given: RunConfig, config: RunConfig, found: Examined, notes: list[str], *, seconds: float, forward: bool) -> Report:
    from renio_pipeline.probe.results import Report

    return Report(
        made=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        name=given.name,
        student=given.student,
        seconds=round(seconds, 1),
        threshold=config.pivotal.threshold,
        loss=config.objective.label if forward else None,
        entries=found.entries,
        notes=notes if forward else [],
        config=given.model_dump(mode="json"),
    )


def _show(report: Report) -> None:
    from renio_pipeline.evaluation.table import show
    from renio_pipeline.probe.table import advice_text, tables

    head = f"probe of {report.name}: student {report.student}, {report.seconds:.0f} s; 95 % intervals over problems\n"
    print(visible(head))
    for table in tables(report):
        show(table)
    for note in report.notes:
        print(visible(f"note: {note}"))
    print(visible(advice_text(report)))
