"""What pydantic finds wrong, in words for the user: the key, what was given, and what is allowed."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from renio_pipeline.config import variants
from renio_pipeline.config.nearest import choice, did_you_mean
from renio_pipeline.config.other_names import our_name
from renio_pipeline.config.run_config import RunConfig


def explain(fault: Any, values: Any) -> str:
    """One line. ``fault``: one of a ValidationError's ``errors()``; ``values``: the configuration that was read."""
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == variants.FAULT:
        return str(message)
    loc = [str(part) for part in fault["loc"]]
    key = ".".join([*loc[:-1], *(part for part in loc[-1:] if part != "[key]")])
    if fault["type"] == "extra_forbidden":
        known = sorted({name for model in _models_at(loc, values) for name in model.model_fields})
        return f"{key}: unknown key; {our_name(key, fault['input']) or did_you_mean(loc[-1], known)}"
    if fault["type"] == "missing":
        return f"{key}: required"
    if fault["type"] == "literal_error":
        allowed = [text or number for text, number in re.findall(r"'([^']*)'|(-?\d+)", fault["ctx"]["expected"])]
        return f"{key}: {fault['input']!r} is not allowed; {choice(fault['input'], allowed)}"
    if fault["type"] == "value_error":
        return f"{key}: {message}" if loc else str(message)
    return f"{key}: {message} (given: {fault['input']!r})"


def _models_at(loc: list[str], values: Any) -> list[type[BaseModel]]:
    """The sections that the last part of ``loc`` may be a key of."""
    models: list[type[BaseModel]] = [RunConfig]
    named = False  # by the user: a key of a mapping, or the index in a list
    for part in loc[:-1]:
        if named:
            named = False
            continue
        annotations = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        named = any(_is_mapping(a) or _is_list_of_sections(a) for a in annotations)
        own = None
        if models == [RunConfig] and part in variants.KINDS:
            own = variants.chosen_or_none(part, values.get(part))
        models = [own] if own else [v for a in annotations for v in _models_in(a)]
    return models


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


def _is_list_of_sections(annotation: Any) -> bool:
    lists = (a for a in (annotation, *typing.get_args(annotation)) if typing.get_origin(a) is tuple)
    return any(True for found in lists for _ in _models_in(found))


def _is_mapping(annotation: Any) -> bool:
    return any(typing.get_origin(a) is dict for a in (annotation, *typing.get_args(annotation)))
