"""``renio config``."""

from __future__ import annotations

import argparse
from typing import Any, cast

from renio_pipeline.cli.common import AnyOrder
from renio_pipeline.config import ConfigError, RunConfig, load
from renio_pipeline.config.describe import REQUIRED, annotated
from renio_pipeline.config.nearest import did_you_mean
from renio_pipeline.visible import visible


def register(commands: Any) -> None:
    """Add the command to ``commands``, what ``ArgumentParser.add_subparsers`` returned."""
    text = "print a configuration with every key's value, default and description; without --config the defaults"
    command: AnyOrder = commands.add_parser("config", help=text, description=text[0].upper() + text[1:] + ".")
    command.add_argument("--config", action="append", help="a YAML file; of several, later ones take precedence")
    command.add_argument(
        "things",
        nargs="*",
        metavar="key | key=value",
        help="a key or section to print alone, such as trainer.lr; or an override",
    )
    command.set_defaults(run=_config)


def _config(args: argparse.Namespace) -> int:
    overrides = [thing for thing in args.things if "=" in thing]
    keys = [thing for thing in args.things if "=" not in thing]
    if args.config:
        config = load(args.config, overrides)
    elif overrides:
        raise ConfigError(f"override {overrides[0]!r}: it needs a configuration to change; give --config FILE")
    else:
        config = RunConfig.model_construct(steps=cast(Any, REQUIRED), student=REQUIRED)
    for key in keys or [""]:
        try:
            print(visible(annotated(config, tuple(key.split(".")) if key else ())))
        except KeyError as error:
            name, known = error.args
            allowed = did_you_mean(name, known) if known else "allowed: nothing below a key"
            raise ConfigError(f"{key}: there is no key {name!r}; {allowed}") from None
    return 0
