"""Whole runs of the command line, on real engines. That they repeat digit for digit: ``test_resume.py``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from renio_pipeline.ledger import history, prove_exactly_once
from renio_pipeline.tasks.arithmetic import Arithmetic
from tests.ray.runs import SMALL, STEPS, finish, lines_of, metrics, responses, start


def test_two_of_each_finish_and_share_the_work(whole_run: Path) -> None:
    lines, written = metrics(whole_run), responses(whole_run)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    own = [r for r in written if "off_policy" not in r]
    assert {r["generator"] for r in own} == {"0", "1"} == {r["teacher"] for r in written}
    assert [r["version"] for r in own] == [f"0.{step}" for step in range(STEPS) for _ in range(12)]
    assert max(line["mismatch/logprob_abs_max"] for line in lines) < 1e-4


def test_every_sample_is_trained_on_exactly_once(whole_run: Path) -> None:
    prove_exactly_once(whole_run)
    assert list(history(whole_run)) == list(range(1, STEPS + 1))
    assert sorted(r["sample_id"] for r in responses(whole_run)) == list(range(16 * STEPS))


def test_a_quarter_of_each_batch_is_solutions_and_says_so(whole_run: Path) -> None:
    foreign = [r for r in responses(whole_run) if "off_policy" in r]
    solutions = {row.problem: row.solution for row in Arithmetic().rows("train", 64)}
    said = {(r["off_policy"], r["version"], r["verdict"], r["weight"]) for r in foreign}
    assert said == {("solution", "off-policy", None, 1)}
    assert all(r["response"] == solutions[r["problem"]] and r["stop_reason"] == "stop" for r in foreign)
    assert all(np.isfinite(r["student_logprobs"]).all() and max(r["student_logprobs"]) < 0 for r in foreign)
    assert all(line["off_policy/fraction"] == 0.25 and line["filter/drawn"] == 12 for line in metrics(whole_run))
    ledger = [line for path in (whole_run / "ledger").glob("rank_*.jsonl") for line in lines_of(path)]
    assert sorted(i for line in ledger for i in line.get("off_policy", [])) == sorted(r["sample_id"] for r in foreign)


def test_student_and_teacher_are_measured_beside_each_other(whole_run: Path) -> None:
    for line in metrics(whole_run):
        if "topk/overlap" in line:  # at one token in 32, of few
            assert 0 <= line["topk/overlap"] <= 1
            assert 0 <= line["topk/teacher_mass"] <= 1 + 1e-5
            assert line["entropy/student"] >= 0
    assert sum("topk/overlap" in line for line in metrics(whole_run)) >= STEPS // 2


def test_the_weights_are_in_the_loss(whole_run: Path) -> None:
    """With weights of one it is the divergence: see the run with several teachers below."""
    line = metrics(whole_run)[0]
    assert line["weights/max"] > line["weights/min"]
    assert abs(line["loss"] - line["divergence"]) > 1e-3


def test_a_checkpoint_loads_in_transformers(whole_run: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = whole_run / f"checkpoints/step_{STEPS:06d}/hf"
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    sample = responses(whole_run)[-1]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(sample["token_ids"], skip_special_tokens=True) == sample["response"]
    assert model.generation_config.eos_token_id is not None


def test_checkpoints_come_when_asked_and_at_the_end_and_the_oldest_go(whole_run: Path) -> None:
    assert sorted(p.name for p in (whole_run / "checkpoints").iterdir()) == [
        "latest",
        "step_000004",
        "step_000006",
        "step_000007",
    ]
    state = json.loads((whole_run / "checkpoints/step_000007/run.json").read_text())
    del state["files"]
    assert state.pop("weighting")["running_mean"] > 1  # of raw weights, which are 1 at least
    assert state == {"step": 7, "samples_drawn": 16 * 7, "version": [0, 7], "world_size": 2, "zero_stage": 2}


def test_several_teachers_a_filter_weights_of_one_and_an_adapter_in_one_run(tmp_path: Path) -> None:
    """Rows of two kinds, each with its teacher (one on each engine); only wrong answers are trained on; LoRA is synced."""
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
    run = start(
        "train",
        "--config",
        "configs/demo.yaml",
        "--config",
        str(config),
        f"run_dir={folder}",
        *SMALL,
        "steps=3",
        "batch_size=16",
        "checkpoint.every=2",
        f"data={{path: {tmp_path}/rows.jsonl, fields: {{teacher: domain}}}}",
        "evaluate.problems=0",
        "filter=incorrect",
        "objective={type: jsd, beta: 0.5}",
        "trainer.lora={r: 4, alpha: 8}",
        "sync.lora=adapter",
        "trainer.lr=0.003",
        "pools.teachers={code: {cpus: 0.25}}",
        "weighting.type=uniform",
    )
    finish(run)
    lines, written = metrics(folder), responses(folder)
    assert {r["verdict"] for r in written} == {"incorrect"}
    assert [len([r for r in written if r["version"] == f"0.{i}"]) for i in range(3)] == [16, 16, 16]
    assert len({r["sample_id"] for r in written}) == 48
    domain = {row["id"]: row["domain"] for row in rows}
    assert all(r["teacher"].startswith(f"{domain[r['row']]}/") for r in written)
    assert {r["teacher"] for r in written} == {"maths/0", "code/0"}
    assert all(line["filter/drawn"] > 16 and 0 < line["reward/accuracy"] < 1 for line in lines)
    assert max(line["mismatch/logprob_abs_max"] for line in lines) < 1e-4
    assert {line["weights/max"] for line in lines} == {line["weights/min"] for line in lines} == {1}
    assert all(line["loss"] == pytest.approx(line["divergence"], abs=1e-6) for line in lines)
    assert sorted(p.name for p in (folder / "checkpoints/step_000003").iterdir()) == [
        "adapter",
        "deepspeed",
        "random",
        "run.json",
    ]
