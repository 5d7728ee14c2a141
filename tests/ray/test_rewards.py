"""A short run of the demo's student under GRPO, with real engines: no teacher, two passes, and a resume to the same digits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from renio_pipeline.ledger import prove_exactly_once
from renio_pipeline.report.recorded import read_runs
from renio_pipeline.report.samples import read_samples
from tests.ray.runs import finish, lines_of, metrics, start, written

STEPS, BATCH = 4, 16
CONFIG: dict[str, Any] = {
    "name": "grpo", "steps": STEPS, "batch_size": BATCH, "samples_per_prompt": 4, "max_response_tokens": 48,
    "student": "embedded:student", "method": {"type": "grpo", "passes": 2}, "deterministic": True,
    "data": {"problems": 64}, "evaluate": {"problems": 16}, "checkpoint": {"every": 2},
    "generator": {"dtype": "float32"}, "trainer": {"dtype": "float32", "zero_stage": 2, "lr": 1e-3},
    "pools": {"generator": {"cpus": 0.25}, "trainer": {"cpus": 0.25, "replicas": 2}},
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grpo")
    OmegaConf.save(CONFIG, folder / "grpo.yaml")
    output = finish(start("train", "--config", str(folder / "grpo.yaml"), f"run_dir={folder}/run"))
    assert f"step {STEPS}/{STEPS}" in output
    return folder


def test_every_sample_is_trained_on_once_with_its_groups_advantage(whole: Path) -> None:
    prove_exactly_once(whole / "run")
    assert len(written(whole / "run")) == STEPS * BATCH
    for line in lines_of(whole / "run" / "samples" / "step_000001.jsonl"):
        assert line["reward"] == float(line["verdict"] == "correct")
        assert not {"teacher", "teacher_logprobs", "weight"} & line.keys()
    rewards = [line["reward"] for line in written(whole / "run")]
    assert 0 < sum(rewards) < len(rewards)


def test_the_first_pass_is_on_policy_and_both_are_counted(whole: Path) -> None:
    found = metrics(whole / "run")
    assert [line["step"] for line in found] == [1, 2, 3, 4]
    assert all(line["mismatch/logprob_abs_max"] < 1e-4 and line["staleness/max"] == 0 for line in found)
    assert all(0 <= line["policy/clipped"] < 1 and line["tokens/scored"] == 0 for line in found)
    assert any(line["policy/clipped"] > 0 for line in found)
    assert found[0]["lr"] == 1e-3
    assert found[1]["lr"] == pytest.approx(1e-3 * 3 / 4)  # two of the schedule's eight steps


def test_a_resumed_run_has_the_same_digits(whole: Path, tmp_path: Path) -> None:
    resumed = tmp_path / "run"
    shutil.copytree(whole / "run", resumed)
    shutil.rmtree(resumed / "checkpoints" / f"step_{STEPS:06d}")
    finish(start("train", "--config", str(whole / "grpo.yaml"), f"run_dir={resumed}", "--resume"))
    assert lines_of(resumed / "resumes.jsonl")[-1]["from_step"] == 2
    assert metrics(resumed) == metrics(whole / "run")
    assert written(resumed) == written(whole / "run")
    prove_exactly_once(resumed)


def test_its_report_has_rewards_and_no_weights(whole: Path) -> None:
    (run,) = read_runs([whole / "run"])
    found = read_samples(run, [], 10_000)
    assert found.weights == []
    entry = found.reader["steps"][0]
    assert entry["teacher_logprob"] is None
    assert set(entry["raw"]) == {None}
    assert set(entry["reward"]) <= {0.0, 1.0}
