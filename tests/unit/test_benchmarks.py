"""The benchmark's own arithmetic, and that its baseline does the pipeline's mathematics."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from renio_pipeline.config import load
from renio_pipeline.divergence import generalized_jsd
from tests.benchmarks.processes import snapshot
from tests.benchmarks.sequential import Sequential, Written
from tests.benchmarks.stages import _batches
from tests.benchmarks.summary import Figure, summarise

ROOT = Path(__file__).parents[2]


def step(seconds: float, tokens: int, **more: Any) -> dict[str, Any]:
    verbs = dict.fromkeys((f"time/{verb}" for verb in ("generate", "score", "weigh", "train", "sync")), 1.0)
    metrics = {"tokens/generated": tokens, "tokens/scored": 2 * tokens, "tokens/trained": 2 * tokens, **verbs}
    return {"samples": 64, "tokens": tokens, "seconds": seconds, "cpu": 10.0, "metrics": metrics, **more}


def named(figures: list[Figure]) -> dict[str, Figure]:
    return {f.name: f for f in figures}


def test_rates_are_compared_over_all_steps_and_spread_over_rounds_side_by_side() -> None:
    used = {"by_role": {"generator": 4.0, "driver": 1.0, "trainer": 5.0}, "overhead": {"generator": 0.5, "driver": 1.0}}
    rounds = [
        {"kind": "baseline", "start": 1.0, "memory": {}, "steps": [step(4.0, 100)]},
        {"kind": "pipeline", "start": 30.0, "memory": {}, "steps": [step(1.0, 100, **used)] * 2},
        {"kind": "baseline", "start": 1.0, "memory": {}, "steps": [step(4.0, 100)]},
        {"kind": "pipeline", "start": 50.0, "memory": {}, "steps": [step(2.0, 100, **used)]},
    ]
    found = named(summarise("tail", rounds, {"generation": {"median": 0.025}}))
    ratio = found["pipeline over baseline, samples/s"]
    assert (ratio.median, ratio.low, ratio.high, ratio.count, ratio.reached) == (4.0, 2.0, 4.0, 3, True)
    generation = found["generation, CPU-seconds over its floor's"]
    assert generation.median == pytest.approx(1.6)
    assert not generation.reached
    assert found["driver, Ray and messages, share of CPU-seconds"].median == pytest.approx(0.15)
    assert found["command to first step, s"].reached


def test_a_ratio_below_its_reach_is_said_to_be() -> None:
    rounds = [
        {"kind": kind, "start": 1.0, "memory": {}, "steps": [step(1.0, 100, by_role={}, overhead={})]}
        for kind in ("baseline", "pipeline")
    ]
    assert named(summarise("tiny", rounds, {}))["pipeline over baseline, samples/s"].reached is True
    assert named(summarise("tail", rounds, {}))["pipeline over baseline, samples/s"].reached is False


BUSY = "import sys, time\nwhile time.process_time() < {}: pass\nprint(flush=True)\nsys.stdin.read()"
CHILD = BUSY.format(0.3)
PARENT = f"import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', {CHILD!r}])\n{BUSY.format(1.5)}"


@pytest.mark.slow
def test_a_child_s_work_counts_for_the_driver_s_family_and_only_for_it() -> None:
    """The driver is a process of this test: of one that has lived long, the threads that have ended are not counted."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline(), parent.stdout.readline()  # one line of each: both have done their work, and wait
        found = snapshot(parent.pid, 1)
        (child,) = psutil.Process(parent.pid).children()
        childs = snapshot(child.pid, 1)
        parent.communicate()
    assert 0.25 < childs.cpu["driver"] < 1.2
    assert sum(childs.cpu.values()) == childs.cpu["driver"]
    assert found.cpu["other of Ray's"] == childs.cpu["driver"]
    assert 1.3 < found.cpu["driver"] < 2.5


def test_every_sequence_is_in_one_batch_and_batches_keep_to_their_tokens() -> None:
    sequences = [([1] * 3, [i] * i) for i in (1, 30, 2, 7, 7, 1, 100)]
    batches = _batches(sequences, 40)
    assert sorted(pair for batch in batches for pair in batch) == sorted(sequences)
    assert all(len(batch) == 1 or len(batch) * max(len(p) + len(r) for p, r in batch) <= 40 for batch in batches)
    assert len(batches) < len(sequences)


def test_the_baseline_s_loss_is_the_plain_mean_of_every_response_s_divergence_whatever_the_padding() -> None:
    overrides = [
        "objective.type=jsd",
        "objective.beta=0.5",
        "weighting.type=uniform",
        "batch_size=4",
        "data.problems=8",
        "max_response_tokens=24",
        "evaluate.problems=0",
        "trainer.max_grad_norm=0",
    ]
    baseline = Sequential(load(ROOT / "configs/demo.yaml", overrides), batch=2)
    prompts = [p.student_ids for p in baseline.cursor.take(4)]
    batches = [baseline._write(prompts[:2]), baseline._write(prompts[2:])]
    expected = sum(_divergence(baseline, batch, row) for batch in batches for row in range(2)) / 4
    tokens = int(sum(batch.response_mask.sum() for batch in batches))
    found = sum(baseline._learn(micro, tokens) for batch in batches for micro in baseline._micro_batches(batch))
    assert len({int(n) for batch in batches for n in batch.response_mask.sum(dim=1)}) > 1, "nothing is padded"
    assert found == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
def _divergence(baseline: Sequential, batch: Written, row: int) -> float:
    """One response's, alone and without padding."""
    ids = batch.tokens[row][batch.attention_mask[row].bool()][None]
    length = int(batch.response_mask[row].sum())
    own, teachers = (model.eval()(input_ids=ids).logits[0, -length - 1 : -1] for model in (baseline.student, baseline.teacher))
    return float(generalized_jsd(own, teachers, beta=0.5).mean())
