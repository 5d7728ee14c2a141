"""What the demo's step costs: `make bench`. Medians over the steps of one run, with their spread; also as JSON."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from renio_pipeline.metrics import read_jsonl

ROOT = Path(__file__).parents[2]
WARM_UP = 3  # steps left out: the engines' first batches allocate
STAGES = {
    "generate": ("tokens/generated", "generator"), "score": ("tokens/scored", "teacher"), "weigh": (None, None),
    "train": ("tokens/trained", "trainer"), "sync": (None, None), "step": ("tokens/generated", None),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path, default=ROOT / "runs/bench.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "renio_pipeline", "train", "--config", "configs/demo.yaml", f"run_dir={run}"]
        subprocess.run([*command, f"steps={args.steps + WARM_UP}", "evaluate.problems=0"], cwd=ROOT, check=True)
        lines = read_jsonl(run / "metrics.jsonl")[WARM_UP:]
    report = summarise(lines)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=1) + "\n")
    show(report, len(lines))


def summarise(lines: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Median, minimum and maximum of each figure."""
    figures: dict[str, list[float]] = {}
    for stage, (tokens, pool) in STAGES.items():
        seconds = [line[f"time/{stage}"] for line in lines]
        figures[f"{stage} seconds"] = seconds
        if tokens:
            figures[f"{stage} tokens/s"] = [line[tokens] / s for line, s in zip(lines, seconds, strict=True)]
        if pool:
            figures[f"{pool} idle share"] = [line[f"idle/{pool}"] for line in lines]
    figures["sync bytes"] = [line["sync/bytes"] for line in lines]
    figures["sync publish seconds"] = [line["sync/publish"] for line in lines]
    figures["sync receive seconds"] = [line["sync/receive"] for line in lines]
    return {
        name: {"median": statistics.median(values), "min": min(values), "max": max(values)} for name, values in figures.items()
    }


def show(report: dict[str, dict[str, float]], steps: int) -> None:
    table = Table("figure", "median", "min", "max", title=f"the demo's step: {steps} steps of one run")
    for name, row in report.items():
        table.add_row(name, *(f"{row[column]:,.4g}" for column in ("median", "min", "max")))
    Console().print(table)


if __name__ == "__main__":
    main()
