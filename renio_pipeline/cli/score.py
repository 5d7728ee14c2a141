"""``renio score``."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renio_pipeline.cli.common import count, path, with_config
from renio_pipeline.cli.terminal import say
from renio_pipeline.config import RunConfig, load
from renio_pipeline.visible import visible

if TYPE_CHECKING:
    from renio_pipeline.preflight import Prepared
    from renio_pipeline.recordings.recorder import Recorder
    from renio_pipeline.types import Prompt


def register(commands: Any) -> None:
    """Add the command to ``commands``, what ``ArgumentParser.add_subparsers`` returned."""
    text = "the student's responses and the teacher's signals as files, for runs with teacher.type=recorded; trains nothing"
    command = commands.add_parser("score", parents=[with_config()], help=text, description=text[0].upper() + text[1:] + ".")
    text = "the recording's folder; the same one again goes on"
    command.add_argument("--out", type=path, required=True, metavar="DIR", help=text)
    text = "responses to record, of the run's prompts in their order; default: as many as the run draws, steps x batch_size"
    command.add_argument("--responses", type=count, metavar="N", help=text)
    text = "another recording of the same teacher, repeatedly: what it has of equal responses is not asked for again"
    command.add_argument("--reuse", type=path, action="append", default=[], metavar="DIR", help=text)
    command.set_defaults(run=_score)


def _score(args: argparse.Namespace) -> int:
    from actors.cluster.address import settled
    from renio_pipeline.probe.setting import recording
    from renio_pipeline.recordings.recorder import check_folder, clock_of, recorder
    from renio_pipeline.recordings.recording import Recording
    from renio_pipeline.stages.recorded_inputs import manifest_of

    config = recording(load(args.config, args.overrides))
    check_folder(args.out)
    for folder in args.reuse:
        Recording.open(folder, "--reuse")
    clock = clock_of(args.out, args.reuse)
    address = settled(args.address)  # before Ray is imported
    from actors import probing as engines
    from actors import run_checks
    from actors.cluster import connection
    from actors.cluster.head_watch import watched_head

    config = connection.run_directory(config, own=address is None)
    prepared = run_checks.prepare_locally(config, clock)
    then = "Then give the same command again, if need be in another cluster: it goes on after the responses that are recorded"
    with connection.connect(address) as cluster, watched_head(cluster.head, say, then):
        prepared = engines.check(config, prepared, clock, forward=False)
        for note in prepared.notes:
            say(note)
        manifest = manifest_of(config, prepared.tokenizer, prepared.vocab_size, prepared.clock)
        with recorder(args.out, manifest, args.reuse) as to:
            prompts = _prompts(config, prepared, args.responses or config.steps * config.batch_size)
            asyncio.run(_record(config, prepared, to, prompts))
            return _end(to, prompts)


def _prompts(config: RunConfig, prepared: Prepared, number: int) -> list[Prompt]:
    from renio_pipeline.data.prompts import Cursor

    cursor = Cursor(prepared.prompt_ids, prepared.rows, config, teacher_ids=prepared.teacher_ids, stretch=prepared.stretch)
    return cursor.take(number)


async def _record(config: RunConfig, prepared: Prepared, to: Recorder, prompts: list[Prompt]) -> None:
    missing = to.missing(prompts)
    if there := len(prompts) - len(missing):
        say(f"{there} of {len(prompts)} responses are there already")
    if not missing:
        return
    from actors import probing as engines
    from renio_pipeline.stages.scoring import Scoring

    recorded = there

    def done(number: int) -> None:
        nonlocal recorded
        recorded += number
        say(f"{recorded} of {len(prompts)} responses are recorded")

    say("starting the engines")
    async with engines.engines(config, prepared, context=prepared.context, forward=False, note=say) as started:
        scoring = Scoring(
            generators=started.generators,
            teachers=started.teachers,
            budget=started.budget,
            config=config,
            recorder=to,
            decode=lambda ids: str(prepared.tokenizer.decode(ids)),
            fetch=started.table,
            done=done,
            note=say,
        )
        await scoring.record(missing)
        if scoring.reused:
            say(f"the signals of {scoring.reused} responses were known, and not asked for again")


def _end(to: Recorder, prompts: list[Prompt]) -> int:
    folder: Path = to.recording.folder
    lost = [prompt.sample_id for prompt in to.missing(prompts)]
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    print(visible(f"{folder}: {len(to.recording)} responses, {size} bytes; train from them with teacher.type=recorded"))
    if lost:
        say(f"{len(lost)} responses could not be recorded, the first is sample {lost[0]}; the same command tries them again")
    return 1 if lost else 0
