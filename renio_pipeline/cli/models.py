"""``renio make-demo-models``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import renio_pipeline
from renio_pipeline.cli.common import path


def register(commands: Any) -> None:
    """Add the command to ``commands``, what ``ArgumentParser.add_subparsers`` returned."""
    make = commands.add_parser("make-demo-models", help="train the embedded teacher and student again (minutes)")
    make.add_argument("--out", type=path, default=Path(renio_pipeline.__file__).parent / "demo")
    make.add_argument("--seed", type=int, default=0)
    make.set_defaults(run=_make_demo_models)


def _make_demo_models(args: argparse.Namespace) -> int:
    from renio_pipeline.demo.make_models import make_demo_models

    make_demo_models(args.out, seed=args.seed)
    return 0
