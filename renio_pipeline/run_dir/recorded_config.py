"""The configuration of a run that is there already, as its ``config.yaml`` has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from renio_pipeline.config import RunConfig, load


def recorded_config(run: Path) -> RunConfig:
    """The resolved configuration of a run's directory, also if an earlier version wrote it. Raises ConfigError."""
    return load(run / "config.yaml", upgrade=_upgrade)


def _upgrade(values: dict[str, Any]) -> dict[str, Any]:
    """Uniform weights once had the threshold and clip of the diagnostics among their own keys."""
    weighting = values.get("weighting")
    if not isinstance(weighting, dict) or weighting.get("type") != "uniform":
        return values
    moved = {key: weighting[key] for key in ("threshold", "clip") if key in weighting}
    left = {key: value for key, value in weighting.items() if key not in moved}
    return values | {"weighting": left, "diagnostics": moved | values.get("diagnostics", {})}
