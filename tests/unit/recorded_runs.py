"""Run directories as runs leave them, without running one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from renio_pipeline.metrics.sink import JsonlSink
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.stages.engine_limits import EngineLimits, record_limits
from tests.unit.conftest import make_config

EOS = 1
VERDICTS = ("incorrect", "correct", "unfinished", None)


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    from renio_pipeline.models.info import resolve

    return AutoTokenizer.from_pretrained(resolve("embedded:student"))


def encode(text: str) -> list[int]:
    ids: list[int] = tokenizer()(text)["input_ids"]
    return ids


def sample(sample_id: int, text: str = "37+48=85;#85", **changes: Any) -> dict[str, Any]:
    """As ``sample_records`` makes them; the second token is pivotal unless the answer is correct."""
    ids = [*encode(text), EOS]
    verdict = changes.pop("verdict", VERDICTS[sample_id % 4])
    pivotal = [] if verdict == "correct" else [1]
    student = [-0.125 * (t + 1) for t in range(len(ids))]
    teacher = [x - (1.5 + sample_id / 8) * (t in pivotal) for t, x in enumerate(student)]
    raw = 1.0 if verdict == "correct" else 4.0 + sample_id
    return {
        "sample_id": sample_id, "row": f"row-{sample_id}", "problem": f"problem {sample_id}", "response": text,
        "token_ids": ids, "student_logprobs": student, "teacher_logprobs": teacher, "pivotal": pivotal,
        "raw_weight": raw, "weight": raw / 4, "verdict": verdict, "stop_reason": "stop", "version": "0.3",
        "generator": "0", "teacher": "1", **changes,
    }  # fmt: skip


def line(step: int, **changes: float) -> dict[str, float]:
    """A step's metrics: 10 seconds, of which the last response takes 6, the last score 1 more, and learning 3."""
    return {
        "loss": 1 / step, "divergence": 0.5 / step, "grad_norm": 1.0, "reward/accuracy": 0.5, "response/tokens": 12.0 + step,
        "response/truncated": 0.0, "weights/effective_sample_size": 3.5, "staleness/max": 0.0, "pivotal/fraction": 0.1,
        "weights/auroc": 0.75, "idle/generator": 0.25, "idle/teacher": 0.5, "idle/trainer": 0.75, "time/start": 0.0,
        "time/first_response": 2.0, "time/generate": 6.0, "time/score": 5.0, "time/weigh": 0.5, "time/train": 2.0,
        "time/sync": 0.5, "time/turns": 0.0, "time/turn_back": 0.0, "time/step": 10.0,
    } | {name.replace("__", "/"): value for name, value in changes.items()}  # fmt: skip


def record(
    folder: Path, steps: Mapping[int, Sequence[dict[str, Any]]] | None = None, *, ended: bool = True, **changes: Any
) -> Path:
    """A run's directory. ``steps``: the samples of each step; ``changes``: of its configuration."""
    steps = {step: [sample(4 * step + i) for i in range(4)] for step in (1, 2, 3)} if steps is None else steps
    shared = {"run_dir": str(folder), "steps": max(1, *steps, 1), "name": "recorded", "max_response_tokens": 48}
    directory = RunDirectory(make_config(**(shared | changes)))
    record_limits(folder, {"generator": EngineLimits(sequences=256, batched_tokens=4096)})
    sink = JsonlSink(directory.metrics)
    for step, samples in steps.items():
        directory.write_samples(step, samples)
        sink.write(step, line(step))
    found = {"problems": 100, "response_tokens": 13.0}
    evaluations = [{"step": 0, **found, "accuracy": 0.25, "low": 0.175, "high": 0.343}]
    evaluations += [{"step": max(steps, default=0), **found, "accuracy": 0.5, "low": 0.404, "high": 0.596}]
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(e) + "\n" for e in evaluations))
    if ended:
        directory.write_result({"evaluations": {}, "auroc": 1.0, "first_step": {}})
    return folder
