"""What of a run is published: the model, or the LoRA adapter, of one of its checkpoints, and the run's records up to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.models.adapters import read_adapter
from renio_pipeline.models.folder import check_folder, check_weights
from renio_pipeline.models.info import EMBEDDED, is_local
from renio_pipeline.run_dir import checkpoint_files
from renio_pipeline.run_dir.json_lines import complete_lines
from renio_pipeline.run_dir.recorded_config import recorded_config
from renio_pipeline.run_dir.starts import starts

Kind = Literal["model", "adapter"]
SETTINGS = "adapter_config.json"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A checkpoint's model or adapter, with what a card tells of its run."""

    kind: Kind
    folder: Path
    step: int
    config: RunConfig
    base: str | None  # the student's name on the hub; None: the card cannot name one
    evaluations: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    starts: list[dict[str, Any]]

    @property
    def files(self) -> dict[str, Path]:
        """The files to upload, by their paths in the repository."""
        found = {str(path.relative_to(self.folder)): path for path in sorted(self.folder.rglob("*")) if path.is_file()}
        return {name: path for name, path in found.items() if not name.startswith(".") and name != "README.md"}

    def adapter_settings(self) -> bytes | None:
        """The adapter's configuration with its base by the name on the hub: at training it is a folder. None: as it stands."""
        if self.kind == "model" or self.base is None:
            return None
        values = json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
        return json.dumps({**values, "base_model_name_or_path": self.base}, indent=2).encode() + b"\n"


def find(run: Path, checkpoint: str | None = None, *, adapter: bool = False, base: str | None = None) -> Published:
    """
    Args:
        run: the run's directory.
        checkpoint: its step; None: the last, which must be that of the run's end.
        adapter: the adapter, also where the checkpoint has the merged model too.
        base: the name of the base model on the hub, where the configuration has another.

    Raises:
        ConfigError: there is no such model, or it is not whole.
    """
    if not (run / "config.yaml").is_file():
        what = "is not a run directory: it has no config.yaml" if run.is_dir() else "does not exist"
        raise ConfigError(f"RUN: {run} {what}; give a run's directory, such as runs/NAME")
    config = recorded_config(run)
    place, step = _checkpoint(run, config, checkpoint)
    folder, kind = _what(place, adapter)
    return Published(
        kind=kind,
        folder=folder,
        step=step,
        config=config,
        base=base or (None if config.student.startswith(EMBEDDED) or is_local(config.student) else config.student),
        evaluations=[line for line in complete_lines(run / "evaluations.jsonl") if line["step"] <= step],
        metrics=[line for line in complete_lines(run / "metrics.jsonl") if line["step"] <= step],
        starts=[line for line in starts(run) if line["from_step"] < step],
    )


def _checkpoint(run: Path, config: RunConfig, wanted: str | None) -> tuple[Path, int]:
    folder = run / "checkpoints"
    complete = {state.step: path for path in sorted(folder.glob("step_*")) if (state := checkpoint_files.read(path))}
    there = ", ".join(map(str, sorted(complete))) or "none"
    if wanted is not None:
        name = Path(wanted).name.removeprefix("step_").lstrip("0") or "0"
        if not name.isdecimal() or int(name) not in complete:
            raise ConfigError(f"--checkpoint: {run} has no complete checkpoint of step {wanted!r}; there are: {there}")
        return complete[int(name)], int(name)
    if not complete:
        raise ConfigError(f"RUN: {run} has no complete checkpoint, so there is no model to push; resume it with --resume")
    step = max(complete)
    if step < config.steps and not (run / "result.json").is_file():
        raise ConfigError(
            f"RUN: {run} has not ended: its last checkpoint is of step {step} of {config.steps}; resume it, or push that one "
            f"with --checkpoint {step}"
        )
    return complete[step], step


def _what(place: Path, adapter: bool) -> tuple[Path, Kind]:
    whole, factors = place / "hf", place / "adapter"
    if adapter and not factors.is_dir():
        raise ConfigError(f"--adapter: {place} has no adapter: the run trained the whole model; leave --adapter out")
    if whole.is_dir() and not adapter:
        check_folder(whole, "RUN")
        check_weights(whole, "RUN")
        _check_no_links(whole)
        return whole, "model"
    if not factors.is_dir():
        raise ConfigError(f"RUN: {place} has neither a model (hf) nor an adapter; choose another one with --checkpoint")
    read_adapter(str(factors), "RUN")
    _check_no_links(factors)
    return factors, "adapter"


def _check_no_links(folder: Path) -> None:
    """No run makes links there: one that somebody else put there would publish what it leads to."""
    if link := next((path for path in folder.rglob("*") if path.is_symlink()), None):
        raise ConfigError(f"RUN: {link} is a symbolic link, and what it leads to would be published; put the file itself there")
