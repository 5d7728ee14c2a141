"""Finds a model's ``config.json``: in a folder, in this package (released models), in the hub's cache, or on the hub."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from renio_pipeline.config import ConfigError
from renio_pipeline.models.info import is_local, resolve


def model_config(name: str, key: str, *, offline: bool = False) -> dict[str, Any]:
    """The contents of a model's configuration file. No other file of the model is read.

    Raises:
        ConfigError: the file cannot be found; names ``key`` and a remedy.
    """
    known = released().get(name)
    if known is not None and not Path(name).exists():
        return known
    if is_local(name):
        return _read(Path(resolve(name)) / "config.json", name, key)
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    if not isinstance(found, str):
        if offline:
            raise ConfigError(f"{key}: {name!r} is not in the hub's cache, and --offline forbids the network; {_HELP}")
        try:
            found = hf_hub_download(name, "config.json")
        except Exception as error:  # no network, no such name, no access: many exception types
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(f"{key}: the configuration of {name!r} cannot be read from the hub ({reason}); {_HELP}") from None
    return _read(Path(found), name, key)


_HELP = "give a folder with the model's config.json instead: its weights are not needed"


@cache
def released() -> dict[str, dict[str, Any]]:
    """The configurations of released models, by hub name, as far as they determine the sizes."""
    found: dict[str, dict[str, Any]] = json.loads((files(__package__) / "released.json").read_text(encoding="utf-8"))
    return found


def _read(path: Path, name: str, key: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{key}: {name!r} has no config.json ({path} does not exist); expected a model folder") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{key}: {path} is not a model configuration")
    return found
