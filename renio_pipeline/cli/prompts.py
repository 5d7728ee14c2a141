"""``renio prompts``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from renio_pipeline.config import RunConfig, load
from renio_pipeline.config.schema import Audience
from renio_pipeline.visible import visible

if TYPE_CHECKING:
    from renio_pipeline.data.prompts import Encoder
    from renio_pipeline.types import Row

TITLES: dict[Audience, str] = {
    "student": "student, in training",
    "reasoning": "teacher, asked for an analysis",
    "teacher": "teacher, shown the solution",
    "evaluation": "evaluation",
}


def register(commands: Any) -> None:
    """Add the command to ``commands``, what ``ArgumentParser.add_subparsers`` returned."""
    text = "print the prompts of the first rows as the models see them, special tokens included"
    command = commands.add_parser("prompts", help=text, description=text[0].upper() + text[1:] + ".")
    command.add_argument("--config", required=True, action="append", help="a YAML file; of several, later ones take precedence")
    command.add_argument("--rows", type=int, default=1, help="how many rows of each source (default: 1)")
    command.add_argument("--ids", action="store_true", help="print the token ids as well")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="override a key, such as template.student.x=false")
    command.set_defaults(run=_prompts)


def _prompts(args: argparse.Namespace) -> int:
    config = load(args.config, args.overrides)
    print(visible("\n".join(shown(config, max(1, args.rows), ids=args.ids))))
    return 0


def shown(config: RunConfig, count: int, *, ids: bool = False) -> Iterator[str]:
    """The lines that are printed. Only the tokenizer and the data are read. Raises ConfigError."""
    from renio_pipeline.data.chat_templates import check_variables, choose_template
    from renio_pipeline.data.problems import first_rows
    from renio_pipeline.data.template_clock import TemplateClock
    from renio_pipeline.models.info import read_tokenizer
    from renio_pipeline.preflight.prompts import encoder_of
    from renio_pipeline.tasks import make_task

    task = make_task(*config.task_recipe)
    tokenizer = read_tokenizer(config.student, "student")
    choose_template(tokenizer, config.data.chat_template, config.student, "student")
    check_variables(tokenizer, config.template)
    encoder = encoder_of(config, task, tokenizer, TemplateClock())
    for row in first_rows(config, task, count):
        yield f"row {row.id!r}" + (f" of source {row.source}" if row.source else "")
        for audience in TITLES:
            if _is_asked(config, audience):
                yield from _one(encoder, tokenizer, row, audience, ids=ids)
        yield ""


def _is_asked(config: RunConfig, audience: Audience) -> bool:
    return {"teacher": config.privileged, "reasoning": config.reason_first is not None}.get(audience, True)


def _one(encoder: Encoder, tokenizer: Any, row: Row, audience: Audience, *, ids: bool) -> Iterator[str]:
    (found,) = encoder.encode([row], audience)
    yield f"--- {TITLES[audience]}: {len(found)} tokens"
    yield str(tokenizer.decode(found, skip_special_tokens=False))
    if ids:
        yield f"--- ids: {found.tolist()}"
