"""Rows from a file: JSON lines, checked line by line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from renio_pipeline.config import ConfigError
from renio_pipeline.schema import FieldName
from renio_pipeline.types import Row

TRAINING: tuple[FieldName, ...] = ("answer", "solution")


def read_rows(
    path: str, fields: Mapping[FieldName, str], *, key: str = "data.path", optional: Sequence[FieldName] = TRAINING
) -> list[Row]:
    """Read ``path``: a JSON object a line, with ``problem`` and optionally ``id`` and what ``optional`` names.

    Args:
        fields: the file's names for those, where they differ.
        key: the configuration key of ``path``, for the errors.
        optional: what to read beside ``id`` and ``problem``.

    Raises:
        ConfigError: the file is missing, unreadable or empty, or a line is bad (with its number).
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")  # not splitlines: JSON text may hold U+2028
    except (OSError, UnicodeDecodeError) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise ConfigError(f"{key}: {path} {reason}") from None
    rows = {number: _row(line, number, path, fields, key, optional) for number, line in enumerate(lines, 1) if line.strip()}
    if not rows:
        raise ConfigError(f"{key}: {path} is empty; expected one JSON object a line, with {fields.get('problem', 'problem')!r}")
    for field, name in fields.items():
        if field in ("id", "problem", *optional) and all(_value(line, name) is None for line in lines if line.strip()):
            raise ConfigError(f"data.fields.{field}: no line of {path} has a field {name!r}")
    seen: dict[str, int] = {}
    for number, row in rows.items():
        if row.id in seen:
            raise ConfigError(f"{key}: {path}: lines {seen[row.id]} and {number} have the same id {row.id!r}")
        seen[row.id] = number
    return list(rows.values())


def _value(line: str, name: str) -> object:
    return json.loads(line).get(name)


def _row(line: str, number: int, path: str, fields: Mapping[FieldName, str], key: str, optional: Sequence[FieldName]) -> Row:
    where = f"{key}: {path}, line {number}"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number too long, brackets too deep
        raise ConfigError(f"{where}: cannot be read: {error}") from None
    if not isinstance(record, dict):
        raise ConfigError(f"{where}: expected an object, got {type(record).__name__}")
    name = fields.get("problem", "problem")
    problem = record.get(name)
    if not isinstance(problem, str) or not problem.strip():
        has = ", ".join(map(repr, record)) or "nothing"
        raise ConfigError(
            f"{where}: field {name!r} must be text that is not empty; the line has {has} (data.fields maps names)"
        )
    found: dict[str, str | None] = {}
    for field in optional:
        value = record.get(fields.get(field, field))
        if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int, float))):
            raise ConfigError(
                f"{where}: field {fields.get(field, field)!r} must be text or a number, got {type(value).__name__}"
            )
        found[field] = None if value is None else str(value)
    row_id = record.get(fields.get("id", "id"))
    row = Row(id=str(number if row_id is None else row_id), problem=problem, line=number, **found)
    for field in ("id", "problem", *optional):
        if any("\ud800" <= c <= "\udfff" for c in getattr(row, field) or ""):
            raise ConfigError(f"{where}: field {fields.get(field, field)!r} holds half a surrogate pair, which is no text")
    return row
