"""From ``data.path`` to rows: picks the reader for a file, a folder or a name on the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from renio_pipeline.config import ConfigError
from renio_pipeline.config.schema import FieldName, Source
from renio_pipeline.data.arrow import ArrowRows, open_table
from renio_pipeline.data.json_lines import JsonLines
from renio_pipeline.data.records import Layout
from renio_pipeline.data.rows import Rows

TRAINING: tuple[FieldName, ...] = ("answer", "solution", "tests")
HELD_OUT: tuple[FieldName, ...] = ("answer", "tests")

_HUB = re.compile(r"(?:[\w.-]+/)?[\w.-]+")
_FILES = (".jsonl", ".json", ".parquet")


def load_rows(source: Source, *, key: str = "data.path", optional: Sequence[FieldName] = TRAINING) -> Rows:
    """Open ``source.path`` and check each of its rows once.

    The path is a JSON Lines file, a JSON or Parquet file, a folder (of such files, in the hub's layout, or as
    ``save_to_disk`` writes it), or the name of a data set on the hub.

    Args:
        key: the configuration key of the path, for error messages; errors about fields name the section's ``fields``.
        optional: the fields to read in addition to ``id`` and ``problem``.

    Raises:
        ConfigError: the source is missing, unreadable or empty, or a row is bad (with its line, or its number from 1).
    """
    path = source.path
    if path is None or not path.strip():
        raise ConfigError(f"{key}: required: a file, a folder, or a name on the hub")
    place = Path(path)
    if not place.exists() and not _is_hub_name(path):
        raise ConfigError(f"{key}: {path} does not exist")
    if place.is_file():
        _refuse_parts(source, key)
        if place.suffix != ".parquet" and not (place.suffix == ".json" and _is_array(place)):
            return JsonLines(Layout.of(source, key=key, optional=optional, unit="line"))
    return ArrowRows(open_table(source, key), Layout.of(source, key=key, optional=optional, unit="row"))


def _is_hub_name(path: str) -> bool:
    return _HUB.fullmatch(path) is not None and not path.endswith(_FILES) and not path.startswith(".")


def _is_array(file: Path) -> bool:
    """Whether a ``.json`` file is one array of rows; otherwise it is JSON Lines under another name."""
    with file.open("rb") as opened:
        return opened.read(4096).lstrip().startswith(b"[")


def _refuse_parts(source: Source, key: str) -> None:
    section = key.rpartition(".")[0]
    for name, given, default in (("subset", source.subset, None), ("split", source.split, "train")):
        if given != default:
            raise ConfigError(
                f"{section}.{name}: {source.path} is a single file and has no {name}s; leave {section}.{name} out"
            )
