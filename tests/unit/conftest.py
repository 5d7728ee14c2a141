"""What several test files need: a small configuration, and the embedded models' folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import renio_pipeline
from renio_pipeline.config import RunConfig, parse

DEMO = Path(renio_pipeline.__file__).parent / "demo"


def values(**changes: Any) -> dict[str, Any]:
    """The fewest keys that make a configuration, and ``changes``."""
    return {"steps": 1, "student": "embedded:student", "teacher": {"model": "embedded:teacher"}} | changes


def make_config(**changes: Any) -> RunConfig:
    return parse(values(**changes))
