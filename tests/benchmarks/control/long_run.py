"""``python -m tests.benchmarks.control.long_run``: `renio report` and a resume over the directory of a run of 10 000 steps."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from renio_pipeline.metrics.sink import JsonlSink
from renio_pipeline.report import write_report
from renio_pipeline.run_dir.checkpoint_files import RunState
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.types import Version
from tests.benchmarks.control.day import ROOT
from tests.unit.conftest import make_config
from tests.unit.recorded_runs import EOS, VERDICTS, encode, line

SECONDS, MEGABYTES = 20.0, 15.0  # asked of the report


def make_run(path: Path, steps: int, batch_size: int) -> Path:
    """A run's directory, of fakes: responses of 12 to 40 tokens whose numbers are drawn, and whose text is always the same."""
    draw = np.random.default_rng(0)
    config = make_config(run_dir=str(path), steps=steps, batch_size=batch_size, name="long", max_response_tokens=48)
    directory, sink = RunDirectory(config), JsonlSink(path / "metrics.jsonl")
    ids = encode("37+48=85;85-9=76;")
    for step in range(1, steps + 1):
        records = []
        for i in range(batch_size):
            tokens = [*(ids * 3)[: int(draw.integers(12, 40))], EOS]
            student = draw.normal(-1, 0.5, len(tokens)).astype(np.float32)
            records.append({
                "sample_id": step * batch_size + i, "row": f"row-{i}", "problem": "37+48-9:",
                "response": "37+48=85;85-9=76;#76", "token_ids": tokens, "student_logprobs": student.tolist(),
                "teacher_logprobs": student.tolist(), "pivotal": [1] if i % 3 else [], "raw_weight": float(student[0] ** 2),
                "weight": float(student[1] ** 2), "verdict": VERDICTS[i % 3], "stop_reason": "stop", "version": f"0.{step}",
                "generator": "0", "teacher": "0",
            })  # fmt: skip
        directory.write_samples(step, records)
        numbers = draw.normal(1, 0.1, 3)
        sink.write(step, line(step, loss=numbers[0], divergence=numbers[1], grad_norm=numbers[2]))
    return path


def measure(path: Path, steps: int) -> dict[str, float]:
    started, cpu = time.perf_counter(), time.process_time()
    (page,) = write_report([path])
    reported, spent, started = time.perf_counter() - started, time.process_time() - cpu, time.perf_counter()
    config = make_config(run_dir=str(path), steps=steps, name="long", max_response_tokens=48)
    RunDirectory(config, RunState(step=steps - 10, version=Version(1, steps - 10))).past()
    return {
        "report, s": reported,
        "report, CPU-seconds": spent,
        "page, MB": page.stat().st_size / 1e6,
        "cut back and read at a resume, s": time.perf_counter() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--json", type=Path, default=ROOT / "runs/bench-long-run.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = measure(make_run(Path(name) / "run", args.steps, args.batch_size), args.steps)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(f"{name}: {value:.1f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
