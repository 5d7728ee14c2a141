"""A run's directory: what the run was, and what it did."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from renio_pipeline.config import RunConfig


class RunDirectory:
    """Layout::

    config.yaml            resolved
    metrics.jsonl          a line a step
    samples/step_*.jsonl   each response with its weight, pivotal tokens, version and verdict
    ledger/rank_*.jsonl    what each trainer rank trained on
    checkpoints/step_*/    hf/ (loads in transformers and vLLM), deepspeed/, run.json
    result.json            written at the end
    """

    def __init__(self, config: RunConfig) -> None:
        self.path = config.directory
        for name in ("samples", "ledger", "checkpoints"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        resolved = OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json")))
        (self.path / "config.yaml").write_text(resolved, encoding="utf-8")

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def write_samples(self, step: int, records: Sequence[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        (self.path / "samples" / f"step_{step:06d}.jsonl").write_text(lines, encoding="utf-8")

    def begin_checkpoint(self, step: int) -> Path:
        """An empty folder to write a checkpoint into; it does not count until ``commit_checkpoint``."""
        folder = self.path / "checkpoints" / f".step_{step:06d}.partial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder.absolute()

    def commit_checkpoint(self, folder: Path, state: dict[str, Any]) -> Path:
        """Make a written checkpoint count, in one rename."""
        (folder / "run.json").write_text(json.dumps(state, indent=1))
        final = folder.with_name(folder.name.removeprefix(".").removesuffix(".partial"))
        folder.rename(final)
        return final

    def write_result(self, result: dict[str, Any]) -> None:
        (self.path / "result.json").write_text(json.dumps(result, indent=1) + "\n")
