"""The ``renio`` command. Exit codes: 0 done, 1 the run failed, 2 the input cannot give a run."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from renio_pipeline import __version__
from renio_pipeline.cli import (
    arms,
    config,
    control,
    doctor,
    evaluate,
    models,
    plan,
    probe,
    prompts,
    push,
    report,
    run,
    score,
    study,
)
from renio_pipeline.cli.common import AnyOrder
from renio_pipeline.cli.terminal import nobody_reads, write_any_text
from renio_pipeline.config import ConfigError
from renio_pipeline.run_dir.fence import LeaseLostError
from renio_pipeline.run_dir.run_log import PREFIX
from renio_pipeline.visible import visible

GONE = 141  # what shells have for a program that is ended by SIGPIPE, as most are where ``| head`` has read enough


def main(arguments: Sequence[str] | None = None) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    write_any_text()
    args = _parser().parse_args(arguments)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        return 130
    except BaseExceptionGroup as group:
        return _failed(_first(group), group)
    except BrokenPipeError as error:
        return GONE if nobody_reads() else _failed(error, error)
    except Exception as error:
        return _failed(error, error)


def _first(error: BaseException) -> BaseException:
    notes = [*getattr(error, "__notes__", ())]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
        notes += getattr(error, "__notes__", ())
    error.__notes__ = notes
    return error


def _failed(error: BaseException, raised: BaseException) -> int:
    """Report ``error``, the first of what was ``raised``: by its text if that says all, else by the traceback too."""
    cause = getattr(error, "cause", None) or error  # of a remote task: the error itself, not Ray's traceback
    if isinstance(cause, (ConfigError, LeaseLostError)):
        print(visible(f"error: {cause}"), file=sys.stderr)
        return 2 if isinstance(cause, ConfigError) else 1
    notes = getattr(error, "__notes__", [])
    where = [note for note in notes if not note.startswith(PREFIX)]
    logs = [note for note in notes if note.startswith(PREFIX)]
    told = [*traceback.format_exception(raised), f"error: {': '.join([*where, type(cause).__name__])}: {cause}\n"]
    print(visible("".join(told) + "\n".join(logs)).rstrip("\n"), file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="renio", description="On-policy distillation with ReNIO sample weights.")
    parser.add_argument("--version", action="version", version=f"renio {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=AnyOrder)
    for command in (run, config, prompts, doctor, plan, probe, score, arms, evaluate, models, control, report, push, study):
        command.register(commands)
    return parser
