"""A task's options: the keyword arguments of its constructor, checked like the rest of the configuration."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, ValidationError, create_model

from renio_pipeline.config import ConfigError
from renio_pipeline.config.nearest import did_you_mean


def constructed(cls: type, options: Mapping[str, Any], name: str) -> Any:
    """``cls(**options)``.

    Raises:
        ConfigError: an option is unknown, missing, or not of its annotated type; or the constructor raises ValueError.
    """
    try:
        return cls(**checked(cls, options, name))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"task_options: {error}") from error


def checked(cls: type, options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options, coerced to the constructor's annotations where it has them. Raises ConfigError, see ``constructed``."""
    parameters = inspect.signature(cls).parameters.values()
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for key in options:
        if key not in named and not open_ended:
            raise ConfigError(f"task_options.{key}: task {name} has no such option; {did_you_mean(key, named)}")
    hints = _hints(cls)
    fields: dict[str, Any] = {
        key: (hints.get(key, Any), ... if p.default is p.empty else p.default) for key, p in named.items()
    }
    form = create_model("Options", __config__=ConfigDict(arbitrary_types_allowed=True, protected_namespaces=()), **fields)
    try:
        values = form.model_validate({key: value for key, value in options.items() if key in named})
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(["task_options", *map(str, fault["loc"])])
        if fault["type"] == "missing":
            raise ConfigError(f"{key}: required by task {name}") from None
        raise ConfigError(f"{key}: {fault['msg']} (given: {fault['input']!r})") from None
    return {key: getattr(values, key) if key in named else value for key, value in options.items()}


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    except (NameError, TypeError, AttributeError):  # no own constructor, or a name that only a type checker sees
        return {}
