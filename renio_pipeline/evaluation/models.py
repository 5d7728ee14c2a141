"""Which models are evaluated: folders and hub names as everywhere else, and the checkpoints of runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from renio_pipeline.config import ConfigError
from renio_pipeline.config.paths import expanded
from renio_pipeline.models.info import EMBEDDED
from renio_pipeline.run_dir import checkpoint_files

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def named(options: Sequence[str], key: str) -> dict[str, str]:
    """Parse ``NAME=VALUE`` options; a bare value is named after its last part. Raises ConfigError for bad or repeated names."""
    found: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            path = Path(option.rpartition(":")[2])
            name, value = (path.parent if path.name == "hf" else path).name, option
            name = re.sub(r"\.(jsonl|json|csv|tsv|parquet)$", "", name)
        if not _NAME.fullmatch(name) or not value:
            raise ConfigError(f"{key}: {option!r} is not NAME=VALUE with a name of letters, digits, '.', '_', '+' and '-'")
        if name in found:
            raise ConfigError(f"{key}: two are named {name!r}; give each its own name, as in {key} {name}-2={value}")
        found[name] = expanded(value, key)
    return found


def locate(name: str, key: str = "--model") -> str:
    """The model that ``name`` stands for: the newest checkpoint of a run directory, or the ``hf/`` of a checkpoint.

    Raises:
        ConfigError: the run has no checkpoint, or the checkpoint has only an adapter.
    """
    if name.startswith(EMBEDDED) or not (folder := Path(name)).is_dir():
        return name
    if (folder / "checkpoints").is_dir():
        found = checkpoint_files.newest(folder / "checkpoints")
        if found is None:
            raise ConfigError(f"{key}: {name} is a run without a complete checkpoint; give a model folder or another run")
        folder = found[0]
    if (folder / "hf").is_dir():
        return str(folder / "hf")
    adapter = next((f for f in (folder / "adapter", folder) if (f / "adapter_config.json").is_file()), None)
    if adapter is not None and not (folder / "config.json").is_file():
        raise ConfigError(
            f"{key}: {folder} has a LoRA adapter but no merged model; train with checkpoint.merged=true, which writes one, or "
            "merge it with peft (merge_and_unload) and give the merged folder"
        )
    return str(folder) if folder != Path(name) else name
