"""``python -m tests.families [FAMILY ...]``: real runs of tiny models of each family, as student and teacher.

Each trains two steps with vLLM engines and a DeepSpeed rank, syncs its weights after each, and resumes for a third. The rate is
so high that a generator without the new weights would disagree with the trainer by far. Prints a table; fails if a family
neither trains nor is refused by name. About two minutes a family on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.families.models import FAMILIES, VOCAB, save

ROOT = Path(__file__).parents[2]
MOST = 2e-3  # nats: the mean difference of log-probabilities of generator and trainer, float32
KEYS: dict[str, Any] = {
    "batch_size": 8,
    "max_response_tokens": 16,
    "task": "arithmetic",
    "data": {"problems": 32},
    "evaluate": {"problems": 0},
    "objective": {"type": "top_k_forward_kl", "k": 8},
    "generator": {"dtype": "float32"},
    "teacher": {"dtype": "float32"},
    "trainer": {"dtype": "float32", "zero_stage": 1, "lr": 1e-2, "schedule": "constant"},
    "checkpoint": {"every": 1},
    "trace": {"steps": 0},
    "pools": {pool: {"cpus": 0.25} for pool in ("generator", "teacher", "trainer")},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(FAMILIES))
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="an override of every run's keys")
    args = parser.parse_args()
    if unknown := [name for name in args.families if name not in FAMILIES]:
        parser.error(f"unknown: {unknown[0]}; there are {', '.join(FAMILIES)}")
    failed = False
    for name in args.families or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            said, good = tried(name, Path(folder), args.set)
            print(f"{name:10} {time.monotonic() - began:4.0f} s  {said}", flush=True)
            failed |= not good
    return int(failed)


def tried(name: str, folder: Path, overrides: list[str]) -> tuple[str, bool]:
    """What came of a family, and whether it trained or was refused by name."""
    student, teacher = (str(save(name, folder / kind, seed=seed)) for seed, kind in enumerate(("student", "teacher")))
    config = folder / "config.json"  # JSON is YAML
    config.write_text(json.dumps(KEYS | {"steps": 3, "student": student, "teacher": KEYS["teacher"] | {"model": teacher}}))
    run = folder / "run"
    for arguments in (["steps=2"], ["steps=3", "--resume"]):
        done = renio("train", "--config", str(config), f"run_dir={run}", *overrides, *arguments)
        if done.returncode:
            said = next((line for line in done.stdout.splitlines() if line.startswith("error: ")), done.stdout[-2000:])
            return f"{'refused' if done.returncode == 2 else f'FAILED ({done.returncode})'}: {said}", done.returncode == 2
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    gaps = [step["mismatch/logprob_abs_mean"] for step in steps]
    losses = [step["loss"] for step in steps]
    shown = f"loss {_row(losses)}, |trainer - generator| {_row(gaps)} nats"
    good = len(steps) == 3 and max(gaps) < MOST and all(map(math.isfinite, losses)) and len({*losses}) == 3
    return f"{'trained' if good else 'WRONG'}: {len(steps)} steps, {shown}, log V {math.log(VOCAB):.2f}", good


def renio(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "renio_pipeline", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )


def _row(values: list[float]) -> str:
    return " ".join(f"{value:.2g}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
