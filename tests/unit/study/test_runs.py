"""`renio study` with the embedded models: small runs that really sample, score and train."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from renio_pipeline.cli import main
from renio_pipeline.config import ConfigError
from renio_pipeline.grading.grader import Judged
from renio_pipeline.probe.run import Size
from renio_pipeline.study import models, recovery
from renio_pipeline.study.character import kind_of
from renio_pipeline.study.plan import Cell, cells, in_order
from renio_pipeline.study.runner import Runner

pytestmark = pytest.mark.slow

RUN = Path(__file__).parents[3] / "configs/study/run.yaml"
SMALL = ["steps=2", "batch_size=8", "data.problems=64", "evaluate.problems=24", "max_response_tokens=40"]


def written(folder: Path, name: str, arms: dict[str, list[str]], **changes: Any) -> Path:
    values = {"experiment": name, "title": "t", "question": "q", "chosen": "c", "run": str(RUN), "seeds": 1} | changes
    path = folder / f"{name}.yaml"
    OmegaConf.save(OmegaConf.create(values | {"arms": {arm: [*SMALL, *keys] for arm, keys in arms.items()}}), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("experiments")
    arms = {"all": [], "wrong": ["filter=incorrect"], "short": ["max_response_tokens=8"]}
    claims = [{"better": "wrong", "than": "all"}]
    return [
        written(folder, "a", arms, claims=claims, curves=True, cost=True),
        written(folder, "c", {"first": ["batch_size=48"]}, kind="weights", prefixes=[8]),
        written(folder, "m", {"student": [], "teacher": ["student=embedded:teacher"]}, kind="models"),
    ]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "core_seconds"}


def one(files: list[Path], experiment: str, arm: str) -> Cell:
    return next(c for c in cells(in_order(files)) if (c.experiment, c.arm) == (experiment, arm))


@pytest.fixture(scope="module")
def trained(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    runner = Runner(models=tmp_path_factory.mktemp("models"))
    return {arm: asyncio.run(runner.run(one(files, "a", arm))) for arm in ("all", "wrong", "short")}


def test_a_study_by_two_processes_is_what_one_finds(
    files: list[Path], trained: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    out, command = tmp_path / "study", ["study", "--config", *map(str, files), "--only", "a", "--out"]
    assert main([*command, str(out), "--jobs", "2"]) == 0
    found = {r["arm"]: r for r in lines(out / "a.jsonl")}
    assert found.keys() == trained.keys()
    for arm, alone in trained.items():
        assert {key: found[arm][key] for key in without_times(alone)} == without_times(alone)
    page = (out / "index.md").read_text()
    assert "a-steps.png" in page
    assert all((out / name).stat().st_size > 10_000 for name in ("a.png", "a-steps.png"))
    before = page, (out / "a.jsonl").read_bytes()
    assert main([*command, str(out)]) == 0  # nothing is left to do
    assert ((out / "index.md").read_text(), (out / "a.jsonl").read_bytes()) == before


def test_every_arm_begins_with_the_same_student_and_ends_with_its_own(trained: dict[str, dict[str, Any]]) -> None:
    assert trained["all"]["before"] == trained["wrong"]["before"] == trained["short"]["before"]
    assert len({json.dumps(r["curves"]) for r in trained.values()}) == 3
    for r in trained.values():
        assert sum(r["after"][kind] for kind in ("correct", "slipped", "guessed", "unfinished")) == pytest.approx(1.0)


def test_what_a_run_took_is_counted(trained: dict[str, dict[str, Any]]) -> None:
    assert trained["all"]["samples"] == 16
    assert trained["wrong"]["samples"] > 16  # it drew until it had as many wrong ones
    assert trained["short"]["generated_tokens"] <= 16 * 8
    assert trained["short"]["after"]["tokens"] > 20  # held-out responses are whole
    for r in trained.values():
        assert r["scored_tokens"] == r["trained_tokens"]
        assert len(r["curves"]["loss"]) == r["trained_steps"] == 2


def test_weights_are_measured_on_a_student_that_is_not_trained(files: list[Path], tmp_path: Path) -> None:
    found = asyncio.run(Runner(models=tmp_path).run(one(files, "c", "first")))
    assert found["samples"] == 48
    assert set(found["auroc"]) == {"8", "whole"}
    assert found["auroc"]["whole"]["weight"] > 0.9
    assert found["raw_weight"]["wrong"] > 2 * found["raw_weight"]["correct"]


def test_a_model_is_told_by_itself_and_after_a_slip(files: list[Path], tmp_path: Path) -> None:
    runner = Runner(models=tmp_path)
    student, teacher = (asyncio.run(runner.run(one(files, "m", arm))) for arm in ("student", "teacher"))
    assert student["alone"]["correct"] < 0.7 < teacher["alone"]["correct"]
    assert teacher["after_slip"]["correct"] < 0.2  # it never saw a slip
    assert student["parameters"] < teacher["parameters"]


def test_a_teacher_is_measured_after_slips_and_after_its_students_own_errors(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "SIZE", Size(responses=48, prefixes=16, continuations=1))
    path = written(tmp_path, "t", {"the teacher": []}, kind="teachers")
    found = asyncio.run(Runner(models=tmp_path).run(one([path], "t", "the teacher")))
    assert found["marked_at_once"] == {"slips": 0.0, "right steps": 0.0}  # the clean one
    assert found["alone"]["correct"] > 0.8 > 0.2 > found["after_slip"]["correct"]
    assert found["responses"]["right"] + found["responses"]["wrong"] == 48
    assert found["own_errors"]["before"][0] > 0.8 > 0.2 > found["own_errors"]["after"][0]
    assert found["own_errors"]["prefixes"] >= 16
    assert 0 < found["loss"]["right"] < 0.5 < found["loss"]["after_pivotal"] + found["loss"]["right"] < 1
    itself = written(tmp_path, "u", {"the teacher": ["teacher.model=embedded:student"]}, kind="teachers")
    with pytest.raises(ConfigError, match="nothing to go on from"):
        asyncio.run(Runner(models=tmp_path).run(one([itself], "u", "the teacher")))


@pytest.mark.parametrize(
    ("text", "verdict", "kind"),
    [
        ("1+2=3;3+4=7;7+5=12;#12", "correct", "correct"),
        ("1+2=3;3+4=8;8+5=13;#13", "incorrect", "slipped"),
        ("1+2=3;#40", "incorrect", "guessed"),
        ("1+2=3;3+4", "unfinished", "unfinished"),
    ],
)
def test_errors_are_told_apart_by_their_form(text: str, verdict: Any, kind: str) -> None:
    judged = Judged(rollout=None, text=text, verdict=verdict)  # type: ignore[arg-type]
    assert kind_of(judged, terms=4) == kind


def test_a_model_of_the_study_is_made_once_and_again_when_its_recipe_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = models.Further(start="embedded:teacher", steps=2, repair=0.25, batch=4)
    monkeypatch.setattr(models, "RECIPES", {"small": recipe, "shown": replace(recipe, repair=0.0, shown=0.5)})
    monkeypatch.setitem(models.RECIPES, "forgetful", replace(recipe, repair=0.0, unborrowed=0.85))
    told: list[str] = []

    def made(name: str) -> bytes:
        return (Path(models.ready(name, tmp_path, told.append)) / "model.safetensors").read_bytes()

    first = made("study:small")
    assert len(told) == 1
    assert made("study:small") == first
    assert len(told) == 1
    assert len({first, made("study:shown"), made("study:forgetful")}) == 3
    (tmp_path / "small" / "model.safetensors").unlink()
    (tmp_path / "small" / "recipe.json").unlink()  # as a kill would have left it
    assert made("study:small") == first
    monkeypatch.setitem(models.RECIPES, "small", replace(recipe, steps=3))
    assert made("study:small") != first
    assert models.ready("embedded:student", tmp_path, told.append) == "embedded:student"
    with pytest.raises(ConfigError, match="study:absent"):
        made("study:absent")


def test_a_model_that_starts_from_another_of_the_study_is_made_again_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = models.Further(start="embedded:teacher", steps=2, repair=0.25, batch=4, layers=4)
    further = models.Further(start="study:deep", steps=2, repair=0.25, noticed=0.0, batch=4)
    monkeypatch.setattr(models, "RECIPES", {"deep": recipe, "deaf": further})
    told: list[str] = []
    folder = models.ready("study:deaf", tmp_path, told.append)
    assert [text.split(":")[1] for text in told if "further steps" in text] == ["deaf", "deep"]
    assert json.loads((Path(folder) / "config.json").read_text())["num_hidden_layers"] == 4
    monkeypatch.setitem(models.RECIPES, "deep", replace(recipe, steps=3))
    models.ready("study:deaf", tmp_path, told.append)
    assert [text.split(":")[1] for text in told if "further steps" in text] == ["deaf", "deep"] * 2


def test_new_layers_change_nothing_until_they_are_trained() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from renio_pipeline.models import info

    model = AutoModelForCausalLM.from_pretrained(info.resolve("embedded:teacher"), dtype=torch.float32)
    deep = models.deepened(model, 6)
    ids = torch.arange(60).reshape(2, 30)
    assert len(deep.model.layers) == 6
    assert torch.equal(deep(input_ids=ids).logits, model(input_ids=ids).logits)
    deep(input_ids=ids, labels=ids).loss.backward()
    assert float(deep.model.layers[5].mlp.down_proj.weight.grad.abs().sum()) > 0  # but they can learn


def test_recipes_at_their_defaults_are_those_that_older_results_were_made_with() -> None:
    assert models.RECIPES["half-repairing"].identity() == {
        "start": "embedded:teacher", "steps": 400, "repair": 0.25, "shown": 0.0, "early": 0.0, "slip": 0.0, "batch": 96,
        "peak_lr": 1e-3, "seed": 0, "mark": ";;",
    }  # fmt: skip
