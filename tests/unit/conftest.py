"""What several test files need: a small configuration, and the embedded models' folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import renio_pipeline
from renio_pipeline.config import RunConfig, parse

DEMO = Path(renio_pipeline.__file__).parent / "demo"

# A machine that is busy fails no example by its time.
hypothesis.settings.register_profile("renio", deadline=None)
hypothesis.settings.load_profile("renio")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Operators of a few elements gain nothing from threads, and lose much where the cores are busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def values(**changes: Any) -> dict[str, Any]:
    """The fewest keys that make a configuration, and ``changes``."""
    return {"steps": 1, "student": "embedded:student", "teacher": {"model": "embedded:teacher"}} | changes


def make_config(**changes: Any) -> RunConfig:
    return parse(values(**changes))
