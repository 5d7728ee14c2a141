"""``renio eval`` on real engines: models and a LoRA adapter, two data sets, one after the other in the same generator pool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from renio_pipeline.config import load
from renio_pipeline.evaluation.metrics import measure
from renio_pipeline.evaluation.results import read_results
from renio_pipeline.models.info import resolve
from renio_pipeline.run_dir.checkpoint_files import RunState, begin, commit
from renio_pipeline.run_dir.directory import RunDirectory
from renio_pipeline.tasks.arithmetic import Arithmetic
from tests.ray.runs import STEPS, finish, start


def test_two_models_on_two_data_sets_and_which_is_better(whole_run: Path, tmp_path: Path) -> None:
    """One is what a run has trained. The teacher need not exist, nor does it matter how a run would sync an adapter. Problems
    come from a file; every number can be had again from the lines written.

    A run that has only an adapter answers as the merged model does. Its factors are so large that it writes what the base, with
    the same seeds, never would."""
    path, out = tmp_path / "sums.jsonl", tmp_path / "out"
    adapted, merged = run_with_an_adapter(tmp_path)
    rows = Arithmetic(seed=1).rows("held_out", 24)
    path.write_text("".join(json.dumps({"id": r.id, "problem": r.problem, "answer": r.answer}) + "\n" for r in rows))
    shown = finish(
        start(
            "eval",
            "--config",
            "configs/demo.yaml",
            "--model",
            f"trained={whole_run}",
            "--model",
            "good=embedded:teacher",
            "--model",
            f"adapted={adapted}",
            "--model",
            f"merged={merged}",
            "--data",
            f"file={path}",
            "--data",
            f"same={path}",
            "--samples",
            "2",
            "--k",
            "1,2",
            "--out",
            str(out),
            "--compare",
            "trained",
            "good",
            "teacher.model=/nowhere",
            "trainer.lora={r: 4, alpha: 8}",
            "sync.lora=adapter",
        )
    )
    results = json.loads((out / "results.json").read_text())
    assert results["models"]["trained"] == str(whole_run / f"checkpoints/step_{STEPS:06d}/hf")
    of = {model: results["results"][model]["file"]["metrics"] for model in ("trained", "good")}
    for model, metrics in of.items():
        name, problems = read_results(str(out / model))
        assert (name, {data: len(p) for data, p in problems.items()}) == (model, {"file": 24, "same": 24})
        again = measure(problems["file"], [1, 2], seed=results["seed"])
        assert {key: found.value for key, found in again.items()} == {key: found["value"] for key, found in metrics.items()}
        assert metrics["pass@1"] == metrics["avg@2"]
        assert metrics["avg@2"]["low"] <= metrics["avg@2"]["value"] <= metrics["pass@2"]["value"]
        assert all(s.tokens > 0 and s.response for p in problems["file"] for s in p.samples)
    assert of["trained"]["avg@2"]["value"] < of["good"]["avg@2"]["value"]
    (test, _) = results["comparisons"]
    assert test["difference"]["value"] == pytest.approx(of["good"]["avg@2"]["value"] - of["trained"]["avg@2"]["value"])
    once, again = (
        _compared(text) for text in (shown, finish(start("eval", "--compare", str(out / "trained"), str(out / "good"))))
    )
    assert [row[0] for row in once] == ["file", "same"]
    assert once == again
    written = responses(out / "trained")
    assert written["file"] != written["same"], "every sample has a seed of its own"
    assert results["models"]["adapted"] == f"embedded:student + {adapted}/checkpoints/step_000001/adapter"
    pairs = list(zip(responses(out / "adapted")["file"], responses(out / "merged")["file"], strict=True))
    assert sum(a == b for a, b in pairs) >= 0.9 * len(pairs), pairs  # rounding may change a token
    base = {sum_ for sum_ in written["file"] if sum_ in dict(pairs)}
    assert len(base) < 0.1 * len(pairs), "the adapter changes nothing: the comparison would prove nothing"


def responses(folder: Path) -> dict[str, list[str]]:
    return {data: [s.response for p in problems for s in p.samples] for data, problems in read_results(str(folder))[1].items()}


def run_with_an_adapter(folder: Path) -> tuple[Path, Path]:
    """The directory of a run that has trained an adapter of the demo's student, and a folder with the merged model."""
    from peft import LoraConfig, get_peft_model

    config = load("configs/demo.yaml", [f"run_dir={folder / 'run'}", "trainer.lora={r: 4, alpha: 8}"])
    partial = begin(RunDirectory(config).checkpoints, RunState(step=1))
    student = AutoModelForCausalLM.from_pretrained(resolve("embedded:student"), dtype=torch.float32)
    torch.manual_seed(0)
    model = get_peft_model(student, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(str(partial / "adapter"))
    commit(partial, RunState(step=1))
    model.merge_and_unload().save_pretrained(str(folder / "merged"))
    AutoTokenizer.from_pretrained(resolve("embedded:student")).save_pretrained(str(folder / "merged"))
    return folder / "run", folder / "merged"


def _compared(shown: str) -> list[list[str]]:
    rows = [line.split() for line in shown.partition("good against trained")[2].splitlines()]
    return [row for row in rows if row[:1] in (["file"], ["same"])]
