"""Which models are evaluated: folders and hub names as everywhere else, and the checkpoints of runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from renio_pipeline.config import ConfigError
from renio_pipeline.config.paths import expanded
from renio_pipeline.models.adapters import read_adapter
from renio_pipeline.models.info import EMBEDDED, is_local
from renio_pipeline.run_dir import checkpoint_files
from renio_pipeline.run_dir.recorded_config import recorded_config

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


@dataclass(frozen=True)
class Located:
    """A model that is evaluated."""

    model: str  # a folder or a hub name
    adapter: str | None = None  # the folder of a LoRA adapter, which its engines add to it

    def __str__(self) -> str:
        return f"{self.model} + {self.adapter}" if self.adapter else self.model


def locate(name: str, key: str = "--model") -> Located:
    """The model that ``name`` stands for: the newest checkpoint of a run directory, the ``hf/`` of a checkpoint, or a LoRA
    adapter on its base, where a checkpoint has nothing else.

    Raises:
        ConfigError: the run has no checkpoint, or an adapter's base is not known.
    """
    if name.startswith(EMBEDDED) or not (folder := Path(name)).is_dir():
        return Located(name)
    if (folder / "checkpoints").is_dir():
        found = checkpoint_files.newest(folder / "checkpoints")
        if found is None:
            raise ConfigError(f"{key}: {name} is a run without a complete checkpoint; give a model folder or another run")
        folder = found[0]
    if (folder / "hf").is_dir():
        return Located(str(folder / "hf"))
    adapter = next((f for f in (folder / "adapter", folder) if (f / "adapter_config.json").is_file()), None)
    if adapter is not None and not (folder / "config.json").is_file():
        read_adapter(str(adapter), key)
        return Located(_base_of(adapter, key), str(adapter))
    return Located(str(folder) if folder != Path(name) else name)


def _base_of(adapter: Path, key: str) -> str:
    """The model that an adapter was trained on: its run's student, or else what its own configuration says.

    A run's record comes first: an adapter's configuration has the folder where the model was found then.
    """
    run = adapter.absolute().parent.parent.parent
    if (run / "checkpoints").is_dir() and (run / "config.yaml").is_file():
        return recorded_config(run).student
    file = adapter / "adapter_config.json"
    base = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ConfigError(f"{key}: {file} does not say which model it is for; write that to base_model_name_or_path there")
    if is_local(base) and not Path(base).is_dir():
        raise ConfigError(
            f"{key}: the adapter {str(adapter)!r} is for the model {base!r}, which is not there; write where it is now to "
            f"base_model_name_or_path in {file}"
        )
    return str(base)
