"""A weighting and an objective from files outside of the package: trained with on real engines, and resumed.

The teacher counts as one with a tokenizer of its own, which happens to be the student's: the numbers are those of any run.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from renio_pipeline import ledger
from tests.ray.runs import SMALL, finish, lines_of, metrics, responses, train
from tests.unit.test_extending import write_examples


def state(folder: Path, step: int) -> float:
    found = json.loads((folder / f"checkpoints/step_{step:06d}/run.json").read_text())
    return float(found["weighting"]["mean"])


@pytest.mark.timeout(1200)
def test_a_run_with_both_trains_and_resumes_with_the_weightings_state(tmp_path: Path) -> None:
    """They are those of docs/extending.md; the driver alone needs the files, which are not in its working directory."""
    write_examples(tmp_path)
    folder = tmp_path / "run"
    own = [
        *SMALL,
        "batch_size=16",
        "data.problems=64",
        "evaluate.problems=0",
        "checkpoint.every=1",
        "teacher.tokenizer=own",
        f"weighting={{type: custom, path: '{tmp_path}/my_weighting.py:WrongMore', wrong: 3.0}}",
        f"objective={{type: custom, path: '{tmp_path}/my_objective.py:SquaredLogRatio'}}",
    ]
    finish(train(folder, *own, "steps=2", "trainer.schedule=constant"))
    finish(train(folder, *own, "steps=3", "trainer.schedule=constant", "--resume"))

    lines = metrics(folder)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(line["payload/bytes"] == 0 < line["loss"] for line in lines)
    assert [r["version"] for r in responses(folder)] == ["0.0"] * 16 + ["0.1"] * 16 + ["1.2"] * 16
    mean = None
    for step in (1, 2, 3):
        records = lines_of(folder / f"samples/step_{step:06d}.jsonl")
        raw = np.array([3.0 if r["verdict"] == "incorrect" else 1.0 for r in records])
        assert 1 < raw.mean() < 3
        mean = raw.mean() if mean is None else 0.9 * mean + 0.1 * raw.mean()
        assert state(folder, step) == pytest.approx(mean), "the state must go from step to step, and over the resume"
        assert [r["weight"] for r in records] == pytest.approx(raw / mean)
        for r in records:
            worst = int(np.argmax(np.float32(r["student_logprobs"]) - np.float32(r["teacher_logprobs"])))
            assert r["token_factors"] == [1.0] * (worst + 1) + [0.5] * (len(r["token_ids"]) - worst - 1)
    # The loss is that of the recorded weights, factors and log-probabilities: on-policy, the generator's are the trainer's.
    records = lines_of(folder / "samples/step_000001.jsonl")
    loss = 0.0
    for r in records:
        ratio = np.clip(np.array(r["student_logprobs"]) - np.array(r["teacher_logprobs"]), -5, 5)
        loss += r["weight"] * float((np.array(r["token_factors"]) * ratio**2 / 2).mean()) / len(records)
    assert lines[0]["loss"] == pytest.approx(loss, rel=1e-3)
    ledger.prove_exactly_once(folder)
