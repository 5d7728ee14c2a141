"""From a record of a file to a Row: which field is which, and the errors for records that are malformed."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from renio_pipeline.config import ConfigError
from renio_pipeline.config.layouts import SPARSE, FieldName, Preset
from renio_pipeline.config.schema import Source
from renio_pipeline.data.layouts.chat import Context, asked, ends_with_an_answer
from renio_pipeline.data.layouts.known import completed
from renio_pipeline.data.layouts.paths import value_at
from renio_pipeline.data.messages import about_messages, keys_of, messages_in
from renio_pipeline.data.values import answer_of, is_missing, json_of, text_of
from renio_pipeline.types import Row

_OTHERS = 5  # values that are shown
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the records of a source become rows."""

    path: str
    key: str  # the configuration key of the path: ``data.path``
    names: Mapping[FieldName, str]  # the source's field names, where they differ from ours
    preset: Preset | None
    given: tuple[FieldName, ...] = ()  # the fields that the user has named
    optional: tuple[FieldName, ...]  # the fields that are read in addition to id and problem
    unit: Literal["line", "row"]  # what a record is called in messages; counted from 1
    only: Mapping[str, Sequence[str]]  # the values that fields of the records must have

    @classmethod
    def of(cls, source: Source, *, key: str, optional: Sequence[FieldName], unit: Literal["line", "row"]) -> Layout:
        assert source.path is not None, "a source without a path has no layout"
        return cls(
            path=source.path,
            key=key,
            names=source.names,
            preset=source.preset,
            given=tuple(source.fields),
            optional=tuple(optional),
            unit=unit,
            only=source.only,
        )

    def wanted(self, record: Any) -> bool:
        """Whether a record is one of those that the user asks for with the key ``only``."""
        if not isinstance(record, dict):
            return True  # which ``row`` refuses
        return all(_shown(value_at(record, name)) in values for name, values in self.only.items())

    def name(self, field: FieldName) -> str:
        return self.names.get(field, field)

    @property
    def fields(self) -> tuple[FieldName, ...]:
        return ("id", "problem", *self.optional)

    def where(self, number: int) -> str:
        """``data.path: x.jsonl, line 3``."""
        return f"{self.key}: {self.path}, {self.unit} {number}"

    def key_of(self, field: FieldName) -> str:
        """The configuration key of a field's name, in the same section as the path."""
        section, _, _ = self.key.rpartition(".")
        return f"{section}.fields.{field}" if section else f"fields.{field}"

    def row(self, record: Any, number: int) -> Row:
        """Convert a record. Raises ConfigError, with the record's location, if it is not a valid row."""
        where = self.where(number)
        if not isinstance(record, dict):
            raise ConfigError(f"{where}: expected an object, got {type(record).__name__}")
        record = completed(record, self.preset)
        problem, context = self._problem(record, where)
        if not isinstance(problem, str) or not problem.strip():
            raise ConfigError(
                f"{where}: field {self.name('problem')!r} must be non-empty text; the {self.unit} has {self.has(record)}"
            )
        found = {field: self._value(record, field, where) for field in self.optional if field != "teacher_prompt"}
        privileged = found.pop("privileged_context", None)
        found |= {"solution": privileged or found["solution"]} if "solution" in found else {}
        row_id = self._value(record, "id", where)
        numbered = row_id is None
        row = Row(
            id=str(number) if row_id is None else row_id,
            problem=problem,
            context=context,
            teacher_prompt=self._teacher_prompt(record, context, where),
            line=number,
            numbered=numbered,
            **found,
        )
        for field in self.fields:
            if _HALF_A_PAIR.search(_text_of(row, field)):
                raise ConfigError(f"{where}: field {self.name(field)!r} holds half a surrogate pair, which is not valid text")
        return row

    def has(self, record: dict[str, Any]) -> str:
        """The fields that a record without a problem has, and what to do."""
        lists = ((name, messages_in(value)) for name, value in record.items())
        name, messages = next(((name, found) for name, found in lists if found), ("", ()))
        maps = self.key_of("problem").rpartition(".")[0]
        hint = ""
        if messages and ends_with_an_answer(messages):
            preset = f"{maps.removesuffix('fields')}preset=chat"
            hint = (
                f"; {name!r} is a chat log, which ends with the assistant's answer: what is missing is a message to answer. "
                f"{preset} asks the user's last message, and takes the answer to it as the solution"
            )
        elif messages:
            hint = f"; {name!r} is a list of messages: {self.key_of('problem')}={name}"
        elif keys_of(record):
            hint = f"; this is one message: write each conversation into one {self.unit}, as a list called 'messages'"
        return f"{', '.join(map(repr, record)) or 'nothing'} ({maps} maps names){hint}"

    def _problem(self, record: dict[str, Any], where: str) -> tuple[Any, Context]:
        """The problem, which may be text or the last of a list of messages, and the messages before it."""
        value = value_at(record, self.name("problem"))
        try:
            return asked(messages) if (messages := messages_in(value)) else (value, ())
        except ValueError as error:
            raise ConfigError(f"{where}: field {self.name('problem')!r} {error}") from None

    def _teacher_prompt(self, record: dict[str, Any], context: Context, where: str) -> Context:
        """The messages that a teacher is shown instead. A text takes the problem's place, a list that of all messages."""
        value = value_at(record, self.name("teacher_prompt")) if "teacher_prompt" in self.optional else None
        if is_missing(value) or value == "":
            return ()
        name = self.name("teacher_prompt")
        try:
            text, before = asked(messages) if (messages := messages_in(value)) else (value, context)
        except ValueError as error:
            raise ConfigError(f"{where}: field {name!r} {error}") from None
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{where}: field {name!r} must be text or a list of messages, got {type(value).__name__}")
        return (*before, ("user", text))

    def _value(self, record: dict[str, Any], field: FieldName, where: str) -> str | None:
        value = value_at(record, self.name(field))
        structured = field == "tests" and isinstance(value, (dict, list))
        if field != "tests":
            self._refuse_messages(value, field, where)
        try:
            return json_of(value) if structured else answer_of(value) if field == "answer" else text_of(value)
        except ValueError as error:
            allowed = "text, an object or a list" if field == "tests" else "text or a number"
            raise ConfigError(f"{where}: field {self.name(field)!r} must be {allowed}, {error}") from None

    def _refuse_messages(self, value: Any, field: FieldName, where: str) -> None:
        if messages := messages_in(value):
            raise ConfigError(f"{where}: {about_messages(self.name(field), messages, field)} ({self.key_of(field)} names it)")


def _shown(value: Any) -> str | None:
    """A value as the user writes it in the key ``only``."""
    if isinstance(value, bool):
        return str(value)
    try:
        return text_of(value)
    except ValueError:
        return None


def _text_of(row: Row, field: FieldName) -> str:
    """Everything that a row has of a field."""
    if field == "teacher_prompt":
        return "".join(text for message in row.teacher_prompt for text in message)
    before = "".join(text for message in row.context for text in message) if field == "problem" else ""
    return before + (getattr(row, "solution" if field == "privileged_context" else field) or "")


class Scan:
    """Checks that need all rows: a mapped field that no row has, or only some have; duplicate ids. Keeps 8 bytes per row."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._ids = array("q")
        self._other: dict[str, None] = {}  # what rows that are not wanted have instead, the first few
        self._missing: dict[FieldName, tuple[int, int]] = {}  # how many rows lack a mapped field, and the number of the first

    def add(self, record: Any, number: int) -> None:
        """Take in the next record. Raises ConfigError if it is not a valid row."""
        row = self._layout.row(record, number)
        self._ids.append(hash(row.id))
        for field, name in self._layout.names.items():
            if is_missing(value_at(completed(record, self._layout.preset), name)) and field in self._layout.fields:
                count, first = self._missing.get(field, (0, number))
                self._missing[field] = (count + 1, first)

    def skip(self, record: Any) -> None:
        """Take note of a record that is not wanted."""
        if len(self._other) < _OTHERS:
            values = (_shown(value_at(record, name)) for name in self._layout.only)
            self._other |= dict.fromkeys(value for value in values if value is not None)

    def _others(self) -> str:
        return f"; there are {', '.join(map(repr, self._other))}" if self._other else ""

    def finish(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """Finish the checks, and return notes for the user.

        Args:
            rows: the rows that were added, to read again.

        Raises:
            ConfigError: there are no rows, no row has a mapped field, or two rows share an id.
        """
        layout, total = self._layout, len(self._ids)
        if not total and layout.only:
            section = layout.key.rpartition(".")[0]
            names = ", ".join(f"{name}: {' or '.join(map(repr, values))}" for name, values in layout.only.items())
            raise ConfigError(f"{section}.only: no {layout.unit} of {layout.path} has {names}{self._others()}")
        if not total:
            what = "one JSON object per line, with" if layout.unit == "line" else "rows with"
            raise ConfigError(f"{layout.key}: {layout.path} is empty; expected {what} {layout.name('problem')!r}")
        if len(np.unique(np.frombuffer(self._ids, np.int64))) < total:
            self._check_ids(rows)
        return tuple(self._lack(field, count, total, first) for field, (count, first) in self._missing.items())

    def _lack(self, field: FieldName, count: int, total: int, first: int) -> str:
        layout, name = self._layout, self._layout.name(field)
        key = layout.key_of(field)
        if layout.preset and name == Source(preset=layout.preset).names.get(field):
            key = f"{key} (of preset {layout.preset})"
        if count == total and not (layout.preset and field in SPARSE and field not in layout.given):
            raise ConfigError(f"{key}: no {layout.unit} of {layout.path} has a field {name!r}")
        return f"{key}: {count} of {total} {layout.unit}s of {layout.path} have no {name!r}; first: {layout.unit} {first}"

    def _check_ids(self, rows: Sequence[Row]) -> None:
        seen: dict[str, int | None] = {}
        for row in rows:
            if row.id in seen:
                layout = self._layout
                raise ConfigError(
                    f"{layout.key}: {layout.path}: {layout.unit}s {seen[row.id]} and {row.line} have the same id {row.id!r}"
                )
            seen[row.id] = row.line
