"""``renio eval`` on real engines: two models, two data sets, one after the other in the same generator pool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from renio_pipeline.evaluation.metrics import measure
from renio_pipeline.evaluation.results import read_results
from renio_pipeline.tasks.arithmetic import Arithmetic
from tests.ray.runs import STEPS, finish, start


def test_two_models_on_two_data_sets_and_which_is_better(whole_run: Path, tmp_path: Path) -> None:
    """One is what a run has trained. The teacher need not exist, nor does it matter how a run would sync an adapter. Problems
    come from a file; every number can be had again from the lines written."""
    path, out = tmp_path / "sums.jsonl", tmp_path / "out"
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
    trained = read_results(str(out / "trained"))[1]
    written = [[s.response for p in trained[data] for s in p.samples] for data in ("file", "same")]
    assert written[0] != written[1], "every sample has a seed of its own"


def _compared(shown: str) -> list[list[str]]:
    rows = [line.split() for line in shown.partition("good against trained")[2].splitlines()]
    return [row for row in rows if row[:1] in (["file"], ["same"])]
