"""The configuration of a run that is there already, as its ``config.yaml`` has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from renio_pipeline.config import RunConfig, load


def recorded_config(run: Path) -> RunConfig:
    """The resolved configuration of a run's directory, also if an earlier version wrote it. Users' classes are those that
    the run executed last. Raises ConfigError."""
    return load(run / "config.yaml", upgrade=_upgrade, recorded=True)


def _upgrade(values: dict[str, Any]) -> dict[str, Any]:
    return _with_template(_with_diagnostics(values))


def _with_template(values: dict[str, Any]) -> dict[str, Any]:
    """A student that taught itself was once told not to think without a key that says so, and `plain` held for evaluation."""
    found = dict(values)
    method, data = values.get("method"), values.get("data")
    if "template" not in values and isinstance(method, dict) and method.get("type") == "opsd":
        found["template"] = {who: {"enable_thinking": False} for who in ("student", "evaluation")}
    if "prompts" not in values and isinstance(data, dict) and data.get("student_prompt") == "plain":
        found["evaluate"] = {"prompt": "plain"} | (values.get("evaluate") or {})
    return found


def _with_diagnostics(values: dict[str, Any]) -> dict[str, Any]:
    """Uniform weights once had the threshold and clip of the diagnostics among their own keys."""
    weighting = values.get("weighting")
    if not isinstance(weighting, dict) or weighting.get("type") != "uniform":
        return values
    moved = {key: weighting[key] for key in ("threshold", "clip") if key in weighting}
    left = {key: value for key, value in weighting.items() if key not in moved}
    return values | {"weighting": left, "diagnostics": moved | values.get("diagnostics", {})}
