"""Benchmarks by name: where each one is, what its fields are called, and which task asks and grades it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from renio_pipeline.config import ConfigError
from renio_pipeline.config.layouts import FieldName
from renio_pipeline.config.nearest import choice
from renio_pipeline.config.schema import Section, Source
from renio_pipeline.data.rows import Made, Rows
from renio_pipeline.data.sources import HELD_OUT, load_rows
from renio_pipeline.types import Row

FILE = Path(__file__).parent / "suites.yaml"
PRESETS = Path(__file__).parent / "presets"  # configurations of the settings of publications, by name


class Suite(Section):
    """An entry of ``suites.yaml``; the head of that file describes each key."""

    about: str
    path: str
    subset: str | None = None
    split: str = "train"
    fields: dict[FieldName, str]
    task: str
    task_options: dict[str, Any] = Field(default_factory=dict)
    samples: PositiveInt
    called_by: str | None = None
    shown: str | None = None

    def source(self, path: str | None) -> Source:
        """The source on the hub, or a copy at ``path``, which has splits only if it has the hub's layout."""
        if path is None:
            return Source(path=self.path, subset=self.subset, split=self.split, fields=self.fields)
        place = Path(path)
        if place.is_file() or (place / "state.json").is_file():  # a single table: a file, or written by save_to_disk
            return Source(path=str(place), fields=self.fields)
        return Source(path=str(place), subset=self.subset, split=self.split, fields=self.fields)

    def rows(self, path: str | None, key: str) -> Rows:
        """The problems, from the hub or a copy. Raises ConfigError if they cannot be read or lack the hub's layout."""
        source = self.source(path)
        if path is not None and not Path(str(source.path)).exists():
            raise ConfigError(f"{key}: {path} does not exist; expected a folder or a file with a copy of {self.path}")
        rows = load_rows(source, key=key, optional=HELD_OUT)
        if not (self.called_by or self.shown):
            return rows
        more = [self._beside(source, field, key) if field else [None] * len(rows) for field in (self.called_by, self.shown)]
        return Made([_completed(*of_row) for of_row in zip(rows, *more, strict=True)])

    def _beside(self, source: Source, field: str, key: str) -> list[str | None]:
        """A field of every row that Row has no attribute for: it is read as if it were the tests."""
        rows = load_rows(source.model_copy(update={"fields": {**self.fields, "tests": field}}), key=key, optional=("tests",))
        return [row.tests for row in rows]


@cache
def suites() -> dict[str, Suite]:
    """All benchmarks, by name."""
    import yaml

    return {name: Suite.model_validate(entry) for name, entry in yaml.safe_load(FILE.read_text(encoding="utf-8")).items()}


def suite(name: str, key: str = "--suite") -> Suite:
    """A benchmark by name, which ``key`` has. Raises ConfigError for an unknown name, with the list of names."""
    known = suites()
    if name in known:
        return known[name]
    raise ConfigError(f"{key}: {name!r} is not known; {choice(name, known)}; --data takes your own data set")


def _completed(row: Row, function: str | None, tests: str | None) -> Row:
    """The row with the name of the function that its tests check, and with its first test shown in the problem."""
    if function is not None:
        row = replace(row, tests=json.dumps({"program": row.tests, "fn_name": function}))
    if tests is not None:
        row = replace(row, problem=f"{row.problem}\n\nYour code should pass this test:\n{json.loads(tests)[0]}")
    return row
