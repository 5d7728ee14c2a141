"""Whole runs of the command line, on real engines, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.ledger import history, prove_exactly_once
from tests.ray.conftest import ROOT

SHORT = ["steps=3", "batch_size=16", "evaluate.problems=32", "checkpoint.every=2"]
# What a repetition must give again: everything but times, rates and the memory of a process.
VARIES = ("time/", "idle/", "memory/", "sync/publish", "sync/receive")


def renio(*arguments: str, timeout: float = 500) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, "-m", "renio_pipeline", *arguments], cwd=ROOT, env=environment, text=True,
        capture_output=True, timeout=timeout,
    )  # fmt: skip


def train(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    done = renio("train", "--config", "configs/demo.yaml", f"run_dir={folder}", *SHORT, *overrides)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(VARIES)} for line in lines]


def responses(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for path in sorted((folder / "samples").glob("step_*.jsonl")) for line in path.read_text().splitlines()
    ]


POOLS = [f"pools.{pool}.replicas=2" for pool in ("generator", "teacher", "trainer")]
SMALL = [f"pools.{pool}.cpus=0.25" for pool in ("generator", "teacher", "trainer")]


@pytest.fixture(scope="module")
def two_of_each(tmp_path_factory: Any) -> Path:
    """A deterministic run with two generators, two teachers and two trainer ranks."""
    folder: Path = tmp_path_factory.mktemp("runs") / "two"
    train(folder, "deterministic=true", "trainer.zero_stage=2", *POOLS, *SMALL)
    return folder


def test_two_of_each_finish_and_share_the_work(two_of_each: Path) -> None:
    lines, written = metrics(two_of_each), responses(two_of_each)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert {r["generator"] for r in written} == {"0", "1"} == {r["teacher"] for r in written}
    assert [r["version"] for r in written] == ["0.0"] * 16 + ["0.1"] * 16 + ["0.2"] * 16
    assert max(line["mismatch/logprob_abs_max"] for line in lines) < 1e-4


def test_every_sample_is_trained_on_exactly_once(two_of_each: Path) -> None:
    prove_exactly_once(two_of_each)
    assert list(history(two_of_each)) == [1, 2, 3]
    assert sorted(r["sample_id"] for r in responses(two_of_each)) == list(range(48))


def test_a_deterministic_run_repeats_digit_for_digit(two_of_each: Path, tmp_path: Path) -> None:
    train(tmp_path / "again", "deterministic=true", "trainer.zero_stage=2", *POOLS, *SMALL)
    assert metrics(tmp_path / "again") == metrics(two_of_each)
    assert responses(tmp_path / "again") == responses(two_of_each)


def test_weights_of_one_give_another_loss_from_the_same_samples(two_of_each: Path, tmp_path: Path) -> None:
    train(tmp_path / "uniform", "deterministic=true", "trainer.zero_stage=2", *POOLS, *SMALL, "weighting.type=uniform")
    renio_lines, uniform_lines = metrics(two_of_each), metrics(tmp_path / "uniform")
    assert responses(tmp_path / "uniform")[0]["token_ids"] == responses(two_of_each)[0]["token_ids"]
    assert uniform_lines[0]["divergence"] == pytest.approx(renio_lines[0]["divergence"], abs=1e-6)
    assert uniform_lines[0]["weights/max"] == 1
    for with_weights, without in zip(renio_lines, uniform_lines, strict=True):
        assert abs(with_weights["loss"] - without["loss"]) > 1e-3


def test_a_checkpoint_loads_in_transformers_and_in_vllm(two_of_each: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = two_of_each / "checkpoints/step_000003/hf"
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    sample = responses(two_of_each)[-1]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(sample["token_ids"], skip_special_tokens=True) == sample["response"]
    assert model.generation_config.eos_token_id is not None
    done = renio("eval", "--config", "configs/demo.yaml", f"student={folder}", "evaluate.problems=32")
    assert done.returncode == 0, done.stderr
    assert "of 32 held-out problems" in done.stdout


def test_checkpoints_come_when_asked_and_at_the_end(two_of_each: Path) -> None:
    assert sorted(p.name for p in (two_of_each / "checkpoints").iterdir()) == ["latest", "step_000002", "step_000003"]
    state = json.loads((two_of_each / "checkpoints/step_000003/run.json").read_text())
    del state["files"]
    assert state == {
        "step": 3, "samples_drawn": 48, "version": [0, 3], "running_mean": None, "world_size": 2, "zero_stage": 2,
    }  # fmt: skip


def test_several_teachers_a_filter_and_an_adapter_in_one_run(tmp_path: Path) -> None:
    """Rows of two kinds, each with its teacher (one on each engine); only wrong answers are trained on; LoRA is synced."""
    from renio_pipeline.tasks.arithmetic import Arithmetic

    rows = [
        {"id": r.id, "problem": r.problem, "answer": r.answer, "domain": "code" if i % 3 == 0 else "maths"}
        for i, r in enumerate(Arithmetic().rows("train", 60))
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = tmp_path / "more.yaml"
    config.write_text(
        "teachers:\n"
        "  maths: {model: 'embedded:teacher', type: torch, dtype: float32}\n"
        "  code: {model: 'embedded:teacher', dtype: float32}\n"
    )
    folder = tmp_path / "run"
    done = renio(
        "train", "--config", "configs/demo.yaml", "--config", str(config), f"run_dir={folder}", *SHORT, *SMALL,
        f"data={{path: {tmp_path}/rows.jsonl, fields: {{teacher: domain}}}}", "evaluate.problems=0", "filter=incorrect",
        "objective={type: jsd, beta: 0.5}", "trainer.lora={r: 4, alpha: 8}", "sync.lora=adapter", "trainer.lr=0.003",
        "pools.teachers={code: {cpus: 0.25}}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines, written = metrics(folder), responses(folder)
    assert {r["verdict"] for r in written} == {"incorrect"}
    assert [len([r for r in written if r["version"] == f"0.{i}"]) for i in range(3)] == [16, 16, 16]
    assert len({r["sample_id"] for r in written}) == 48
    domain = {row["id"]: row["domain"] for row in rows}
    assert all(r["teacher"].startswith(f"{domain[r['row']]}/") for r in written)
    assert {r["teacher"] for r in written} == {"maths/0", "code/0"}
    assert all(line["filter/drawn"] > 16 and 0 < line["reward/accuracy"] < 1 for line in lines)
    assert max(line["mismatch/logprob_abs_max"] for line in lines) < 1e-4
    assert sorted(p.name for p in (folder / "checkpoints/step_000003").iterdir()) == [
        "adapter", "deepspeed", "random", "run.json",
    ]  # fmt: skip


def test_a_student_is_evaluated_although_its_run_would_sync_an_adapter() -> None:
    done = renio("eval", "--config", "configs/demo.yaml", "trainer.lora={r: 4, alpha: 8}", "sync.lora=adapter",
                 "evaluate.problems=16")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "of 16 held-out problems" in done.stdout
