"""A run's directory: its configuration and its records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from renio_pipeline.config import RunConfig
from renio_pipeline.config.own import own_copies
from renio_pipeline.config.yaml_text import document
from renio_pipeline.run_dir import checkpoint_files
from renio_pipeline.run_dir.batches import FILE as BATCHES
from renio_pipeline.run_dir.batches import batch_record, step_files, step_path
from renio_pipeline.run_dir.checkpoint_files import THE_START, RunState, write_durably
from renio_pipeline.run_dir.fence import NO_FENCE, Fence
from renio_pipeline.run_dir.json_lines import complete_lines, json_line, keep_lines, lines_of, remove
from renio_pipeline.run_dir.ledger_files import open_ledgers
from renio_pipeline.types import Evaluation


@dataclass(kw_only=True)
class Past:
    """What the run has done so far, for ``result.json``."""

    evaluations: dict[int, Evaluation] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)  # metrics of the first step that trained


class RunDirectory:
    """Layout::

    config.yaml            resolved
    own/EPOCH/             the users' files that the run executes, with the modules beside them, since that restart epoch
    data.json, data/       what the run reads: files, sizes, rows and their fingerprints, and the chat template's clock
    starts.jsonl           a line a start: command, overrides, versions of the libraries
    engines.json           the limits that each pool's engines were built with
    log.txt                every note with its time, every traceback, and what libraries print
    metrics.jsonl          a line a step
    evaluations.jsonl      a line an evaluation
    batches.jsonl          a line a step that trained: ids, weights, verdicts and lengths of its samples
    samples/step_*.jsonl   each response with its weight, pivotal tokens, version and verdict; older ones are packed (.zst)
    analyses.jsonl         with method.reason_first: each problem's analysis by the teacher
    ledger/rank_*.jsonl    what each trainer rank trained on; full ones are packed
    resumes.jsonl          a line a restart: its restart epoch ("incarnation"), and the step it resumed after
    checkpoints/step_*/    hf/ (loads in transformers and vLLM), deepspeed/, run.json; ``latest`` names the newest
    result.json            written at the end

    Created for a resumed run, it deletes the records of steps after ``state.step``. The ledger is never cut: the lines of a
    restart epoch count up to the step that the next epoch resumed after.

    Whatever writes raises LeaseLostError, and has written nothing, if the run has lost the directory's lease (``.lease/``).
    """

    def __init__(self, config: RunConfig, state: RunState = THE_START, fence: Fence = NO_FENCE) -> None:
        """``fence``: that of the lease (``lease.py``) that this process holds; without one nobody else may write here."""
        self.path, self.fence = config.directory, fence
        fence.check()
        self.path.mkdir(parents=True, exist_ok=True)
        own_copies.keep(self.path, config.own_files, state.version.incarnation, fence.write)
        write_durably(self.path / "config.yaml", document(config.model_dump(mode="json")))
        for name in ("samples", "ledger", "checkpoints"):
            (self.path / name).mkdir(exist_ok=True)
        if state.version.incarnation:
            self.begin_epoch(state)

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def write_samples(self, step: int, records: Sequence[dict[str, Any]]) -> None:
        self.fence.write(step_path(self.path, step), b"".join(map(json_line, records)))
        self._append(BATCHES, batch_record(step, records))

    def write_evaluation(self, step: int, found: Evaluation) -> None:
        self._append("evaluations.jsonl", {"step": step, **found.record()})

    def write_result(self, result: dict[str, Any]) -> None:
        self.fence.write(self.path / "result.json", json.dumps(result, indent=1).encode() + b"\n")

    def past(self) -> Past:
        """What earlier restart epochs did, up to the step that this one resumes after; empty for a new run."""
        found = Past()
        for line in complete_lines(self.path / "evaluations.jsonl"):
            step = line.pop("step")
            found.evaluations[step] = Evaluation(**line)
        metrics = complete_lines(self.metrics)
        found.first = next(({k: v for k, v in m.items() if k != "step"} for m in metrics if "loss" in m), {})
        return found

    def samples_of(self, step: int) -> int:
        """The number of samples that a step was trained on."""
        return sum(line.endswith(b"\n") for line in lines_of(step_path(self.path, step)))

    def begin_epoch(self, state: RunState) -> None:
        """Begin ``state``'s restart epoch: delete what earlier epochs recorded after ``state.step``."""
        self._append("resumes.jsonl", {"incarnation": state.version.incarnation, "from_step": state.step})
        (self.path / "result.json").unlink(missing_ok=True)
        for path in (self.metrics, self.path / "evaluations.jsonl", self.path / BATCHES):
            keep_lines(path, state.step)
        for path in open_ledgers(self.path / "ledger"):
            keep_lines(path)  # all but an incomplete last line, which a killed process leaves
        for step, path in step_files(self.path).items():
            if step > state.step or not state.step:
                remove(path)
        known = {line["step"] for line in complete_lines(self.path / BATCHES)}
        for step, path in step_files(self.path).items():
            if step not in known:  # an earlier version wrote it; its samples may be dropped from now on
                self._append(BATCHES, batch_record(step, list(complete_lines(path))))
        checkpoint_files.cut_back(self.checkpoints, state.step)

    def _append(self, name: str, values: dict[str, Any]) -> None:
        self.fence.append(self.path / name, json.dumps(values).encode() + b"\n")
