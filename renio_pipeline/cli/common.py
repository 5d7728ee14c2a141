"""What commands that read a run's configuration have in common."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.config.paths import expanded

TAKEOVER = "write also where another process holds the directory, if it gives no sign of life, as after the loss of its machine"


class AnyOrder(argparse.ArgumentParser):
    """A command's parser, which takes overrides before, between and after options."""

    _mixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._mixed:  # what follows calls this again
            return super().parse_known_args(args, namespace)
        self._mixed = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixed = False


def with_config(*, required: bool = True) -> argparse.ArgumentParser:
    """The arguments, as a parent of a command's parser."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        required=required,
        action="append",
        help="a YAML file, such as configs/demo.yaml; of several, later ones count",
    )
    common.add_argument("--address", help="a Ray cluster; default: RAY_ADDRESS, or a Ray started for this run")
    common.add_argument("overrides", nargs="*", metavar="key=value", help="override a key, such as steps=10")
    return common


def path(text: str) -> Path:
    """An option's value as a path. Raises ArgumentTypeError."""
    return Path(path_text(text))


def path_text(text: str) -> str:
    """An option's value with ``~`` expanded, which shells leave to us in ``--option=~/folder``. Raises ArgumentTypeError."""
    try:
        return expanded(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds(text: str) -> float:
    """An option's value as a positive number of seconds. Raises ArgumentTypeError."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give a positive number of seconds")
    return found


def count(text: str) -> int:
    """An option's value as a whole number from 1 on. Raises ArgumentTypeError."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)
