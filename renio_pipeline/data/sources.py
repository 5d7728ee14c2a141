"""From ``data.path`` to rows: picks the reader for a file, a folder or a name on the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from renio_pipeline.config import ConfigError
from renio_pipeline.config.layouts import FieldName
from renio_pipeline.config.schema import Source
from renio_pipeline.data.data_sets import open_data_set
from renio_pipeline.data.files.arrow import ArrowRows
from renio_pipeline.data.files.compressed import Unreadable, plain_name
from renio_pipeline.data.files.csv_files import CsvFile
from renio_pipeline.data.files.json_files import JsonLines, json_format
from renio_pipeline.data.files.located import Format, LocatedRows
from renio_pipeline.data.records import Layout
from renio_pipeline.data.rows import Rows
from renio_pipeline.models.lfs import refuse_pointer

TRAINING: tuple[FieldName, ...] = ("answer", "solution", "tests", "teacher_prompt", "privileged_context")
HELD_OUT: tuple[FieldName, ...] = ("answer", "tests")

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_HUB = re.compile(r"(?:[\w.-]+/)?[\w.-]+")
_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def load_rows(source: Source, *, key: str = "data.path", optional: Sequence[FieldName] = TRAINING) -> Rows:
    """Open ``source.path`` and check each of its rows once.

    The path is a JSON Lines, JSON, CSV or TSV file, which gzip or zstd may pack, a Parquet file, a folder (of such files,
    in the hub's layout, or as ``save_to_disk`` writes it), or the name of a data set on the hub.

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
    if not place.is_file():
        found = open_data_set(source, key)
        layout = Layout.of(source, key=key, optional=optional, unit="row")
        return LocatedRows(layout, found) if isinstance(found, list) else ArrowRows(found, layout)
    _refuse_parts(source, key)
    refuse_pointer(place, key)
    if place.suffix == ".parquet":
        return ArrowRows(open_data_set(source, key), Layout.of(source, key=key, optional=optional, unit="row"))
    try:
        form = _text_format(place)
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error}") from None
    unit: Literal["line", "row"] = "line" if isinstance(form, JsonLines) else "row"
    return LocatedRows(Layout.of(source, key=key, optional=optional, unit=unit), [(path, form)])


def _text_format(file: Path) -> Format:
    ending = Path(plain_name(file.name)).suffix
    if ending == ".parquet":
        raise Unreadable("Parquet is compressed by itself; unpack it")
    if ending in _SEPARATORS:
        return CsvFile(_SEPARATORS[ending])
    return json_format(file) if ending == ".json" else JsonLines()


def _is_hub_name(path: str) -> bool:
    return _HUB.fullmatch(path) is not None and not plain_name(path).endswith(_FILES) and not path.startswith(".")


def _refuse_parts(source: Source, key: str) -> None:
    section = key.rpartition(".")[0]
    for name, given, default in (("subset", source.subset, None), ("split", source.split, "train")):
        if given != default:
            raise ConfigError(
                f"{section}.{name}: {source.path} is a single file and has no {name}s; leave {section}.{name} out"
            )
