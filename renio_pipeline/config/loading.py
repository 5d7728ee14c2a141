"""Read a run's configuration: YAML and ``key=value`` overrides in, a frozen, checked RunConfig out.

``load(path, overrides)`` raises ConfigError, whose text names the key, what was given and what is allowed.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from yaml import YAMLError

from renio_pipeline.config import variants
from renio_pipeline.config.checks import check_combinations
from renio_pipeline.config.errors import ConfigError
from renio_pipeline.config.paths import expanded
from renio_pipeline.config.run_config import RunConfig


def load(
    path: str | Path | Sequence[str | Path],
    overrides: Sequence[str] = (),
    *,
    upgrade: Callable[[dict[str, Any]], dict[str, Any]] = lambda values: values,
) -> RunConfig:
    """Read a file, or several of which a later one's keys count, and apply ``key.path=value`` overrides.

    ``upgrade`` changes the resolved keys of a file that an earlier version wrote before they are checked.

    Raises:
        ConfigError: a file is missing or no YAML, an override is malformed, or a key or value is not allowed.
    """
    paths = [expanded(str(one), "--config") for one in ([path] if isinstance(path, (str, Path)) else path)]
    for item in overrides:
        if not item.partition("=")[0].strip() or "=" not in item:
            raise ConfigError(f"override {item!r}: expected key=value, for example steps=10")
    layers: list[tuple[str, Callable[[], Any]]] = [(str(p), partial(OmegaConf.load, p)) for p in paths]
    if overrides:
        layers.append((f"{paths[-1]} with {' '.join(overrides)}", partial(OmegaConf.from_dotlist, list(overrides))))
    values: dict[str, Any] = {}
    for source, read in layers:
        with _reading(source):
            layer: Any = OmegaConf.to_container(read())
            if not isinstance(layer, dict):
                raise ConfigError(f"{source}: expected a mapping of keys, got {type(layer).__name__}")
            _drop_keys_of_replaced_variants(values, layer)
            values = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.merge(values, layer)))
    with _reading(layers[-1][0]):
        resolved: Any = OmegaConf.to_container(OmegaConf.create(values), resolve=True, throw_on_missing=True)
    return parse(upgrade(resolved), source=" + ".join(map(str, paths)))


@contextmanager
def _reading(source: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ConfigError(f"configuration file {source} does not exist") from None
    except IsADirectoryError:
        raise ConfigError(f"configuration file {source} is a folder") from None
    except (OSError, UnicodeDecodeError, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"{source}: {error}") from None


def parse(values: Any, *, source: str = "configuration") -> RunConfig:
    """Check a plain mapping. Raises ConfigError, one line a fault."""
    try:
        config = RunConfig.model_validate(values)
        check_combinations(config)
    except ValidationError as error:
        lines = [f"{source}:"] + [f"  {_explain(fault, values)}" for fault in error.errors()]
        raise ConfigError("\n".join(lines)) from None
    except ValueError as error:  # a combination of keys; a ValidationError is one too
        raise ConfigError(f"{source}:\n  {error}") from None
    return config


def _drop_keys_of_replaced_variants(base: dict[str, Any], overrides: dict[str, Any]) -> None:
    """``weighting.type=uniform`` over a file's renio section leaves out the keys that only renio has; ``teachers`` over a
    file's ``teacher`` leaves that out."""
    if overrides.get("teachers") is not None and "teacher" not in overrides:
        base.pop("teacher", None)
    for kind in variants.KINDS:
        given, section = overrides.get(kind), base.get(kind)
        if not (isinstance(given, dict) and isinstance(section, dict)):
            continue
        old, new = _chosen(kind, section), _chosen(kind, section | given)
        if old and new and old is not new:
            gone = old.model_fields.keys() - new.model_fields.keys()
            base[kind] = {key: value for key, value in section.items() if key not in gone}


def _chosen(kind: variants.Kind, section: Any) -> type[BaseModel] | None:
    """The class that a section's ``type`` chooses; None where it chooses none, which ``parse`` explains."""
    try:
        return variants.chosen(kind, section) if isinstance(section, dict) else None
    except ConfigError:
        return None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


def _is_mapping(annotation: Any) -> bool:
    return any(typing.get_origin(a) is dict for a in (annotation, *typing.get_args(annotation)))


def _explain(fault: Any, values: Any) -> str:
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == variants.FAULT:
        return str(message)
    loc = [str(part) for part in fault["loc"]]
    models: list[type[BaseModel]] = [RunConfig]
    named = False  # by the user: a key of a mapping
    for part in loc[:-1]:
        if named:
            named = False
            continue
        annotations = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        named = any(_is_mapping(a) for a in annotations)
        own = _chosen(part, values.get(part)) if models == [RunConfig] and part in variants.KINDS else None
        models = [own] if own else [v for a in annotations for v in _models_in(a)]
    key = ".".join([*loc[:-1], *(part for part in loc[-1:] if part != "[key]")])
    if fault["type"] == "extra_forbidden":
        known = sorted({name for m in models for name in m.model_fields})
        near = difflib.get_close_matches(loc[-1], known, n=1, cutoff=0.5)
        return f"{key}: unknown key" + (f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(known)}")
    if fault["type"] == "missing":
        return f"{key}: required"
    if fault["type"] == "value_error":
        return f"{key}: {message}" if loc else str(message)
    return f"{key}: {message} (given: {fault['input']!r})"
