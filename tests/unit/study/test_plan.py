"""A study's files, the order of its runs, and the raw results that make it resumable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from renio_pipeline.config import ConfigError
from renio_pipeline.in_process import check
from renio_pipeline.study import run as study_run
from renio_pipeline.study.plan import Cell, Experiment, cells, in_order, read
from renio_pipeline.study.results import Results, whole_lines
from renio_pipeline.weightings.adaptive import Adaptive
from renio_pipeline.weightings.recovery import Rules

STUDY = Path(__file__).parents[3] / "configs/study"
SHIPPED = sorted(STUDY.glob("?.yaml"))


def experiment(folder: Path, name: str, **changes: Any) -> Path:
    values = {
        "experiment": name,
        "title": "t",
        "question": "q",
        "chosen": "c",
        "run": str(STUDY / "run.yaml"),
        "seeds": 3,
        "arms": {"one": ["weighting.type=renio"], "other": []},
    }
    path = folder / f"{name}.yaml"
    OmegaConf.save(OmegaConf.create(values | changes), path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        list(cells(in_order([path])))
    return str(caught.value)


def test_every_run_that_the_shipped_experiments_ask_for_is_a_configuration_that_runs_in_one_process() -> None:
    wanted = list(cells(in_order(SHIPPED)))
    assert {c.experiment for c in wanted} == set("abcdefghkmprst")
    for cell in wanted:
        check(cell.config)
        assert cell.config.seed == cell.seed
    first = [c.config for c in wanted if c.seed == 0]
    assert {c.filter for c in first} == {"all", "correct", "incorrect"}
    assert {c.weighting.type for c in first} == {"uniform", "renio", "iw", "confidence_gate", "adaptive"}
    assert {c.method.type for c in first} == {"opd", "opsd", "grpo", "sft"}
    assert len({c.max_response_tokens for c in first}) > 2
    assert len({(c.pivotal.threshold, c.pivotal.clip) for c in first}) >= 9
    assert {c.objective.type for c in first} == {"jsd", "clipped", "nll"}
    assert len({c.objective.model_dump_json() for c in first if c.objective.type == "jsd"}) == 2
    assert {c.steps for c in first} == {20, 60}


def test_seeds_are_breadth_first_and_the_first_questions_come_first(tmp_path: Path) -> None:
    paths = [experiment(tmp_path, name, seeds=seeds) for name, seeds in (("d", 2), ("b", 1), ("c", 3), ("a", 2))]
    order = [(c.seed, c.experiment, c.arm) for c in cells(in_order(paths))]
    assert order == [
        (seed, name, arm) for seed, names in ((0, "acbd"), (1, "acd"), (2, "c")) for name in names for arm in ("one", "other")
    ]
    assert [c.seed for c in cells(in_order(paths, ["b"]), seeds=2)] == [0, 0, 1, 1]


@pytest.mark.slow
def test_arms_that_coincide_have_one_key_and_others_have_their_own() -> None:
    wanted = [c for c in cells(in_order(SHIPPED)) if c.seed == 0]
    key = {(c.experiment, c.arm, *c.factors.values()): c.key for c in wanted}
    assert key["a", "all", "clean"] == key["b", "uniform", "opd, clean teacher"]
    assert key["b", "renio", "opd, half-repairing teacher"] == key["d", "whole", "half-repairing"]
    assert key["b", "renio", "opd, half-repairing teacher"] == key["e", "0.8 / 2.5", "half-repairing"]
    assert len({key["a", arm, teacher] for arm in ("all", "correct-only") for teacher in ("clean", "half-repairing")}) == 4
    assert key["b", "renio", "opd, clean teacher"] == key["g", "renio", "opd, clean teacher"], (
        "keys at their defaults leave old results valid"
    )
    assert len({c.key for c in wanted if c.experiment == "e"}) == 9
    assert len({c.key for c in wanted if c.experiment == "h"}) == 8
    assert key["h", "uniform, none after", "opd, clean teacher"] == key["g", "uniform, none after", "opd, clean teacher"]
    assert key["b", "uniform", "opsd"] == key["r", "uniform", "opsd"] == key["g", "uniform", "opsd"]
    assert key["c", "first responses", "clean"] not in {c.key for c in wanted if c.kind == "training"}


def test_a_result_of_the_adaptive_weighting_is_valid_for_the_thresholds_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = experiment(tmp_path, "a", arms={"adaptive": ["weighting.type=adaptive"]}, seeds=1)
    (before,) = cells(in_order([path]))
    monkeypatch.setattr(Adaptive, "rules", Rules(suffix_from=0.3))
    (after,) = cells(in_order([path]))
    assert before.config == after.config
    assert before.key != after.key


def test_arms_that_differ_in_a_type_alone_have_keys_of_their_own(tmp_path: Path) -> None:
    arms = {
        "uniform": [], "iw": ["weighting.type=iw"], "gate": ["weighting.type=confidence_gate"],
        "dimmed": ["weighting.after_pivotal=0.5"], "renio, dimmed": ["weighting.type=renio", "weighting.after_pivotal=0.5"],
        "sampled": ["objective.type=sampled"], "privileged": ["method.privileged=true"],
    }  # fmt: skip
    found = list(cells(in_order([experiment(tmp_path, "a", arms=arms, seeds=1)])))
    assert len({c.key for c in found}) == len(arms)


def test_levels_of_factors_are_crossed_with_arms(tmp_path: Path) -> None:
    factors = {"rate": {"low": ["trainer.lr=1e-4"], "high": ["trainer.lr=1e-3"]}, "size": {"small": ["batch_size=8"]}}
    found = list(cells(in_order([experiment(tmp_path, "a", factors=factors, seeds=1)])))
    assert [(c.factors["rate"], c.factors["size"], c.arm) for c in found] == [
        ("low", "small", "one"),
        ("low", "small", "other"),
        ("high", "small", "one"),
        ("high", "small", "other"),
    ]
    assert {(c.config.trainer.lr, c.config.batch_size) for c in found} == {(1e-4, 8), (1e-3, 8)}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"arm": {}}, "arm"),
        ({"arms": {}}, "arms"),
        ({"seeds": 0}, "seeds"),
        ({"arms": {"one": ["weighting.typo=renio"]}}, "typo"),
        ({"arms": {"one": ["filter=wrong"]}}, "filter"),
        ({"claims": [{"better": "one", "than": "nobody"}]}, "'nobody' is not an arm"),
        ({"arms": {"one": ["teacher.model=study:nobody"]}}, "study:nobody"),
        ({"run": "absent.yaml"}, "absent.yaml"),
        ({"regress": True}, "needs an experiment of kind training with a claim"),
        ({"arms": {"one": ["teachers.maths.model=embedded:teacher"]}}, "teachers: a study's student has one"),
    ],
)
def test_a_fault_in_an_experiments_file_is_told_by_its_key(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    assert told in refusal(experiment(tmp_path, "a", **changes))


def test_a_choice_that_names_nothing_is_refused(tmp_path: Path) -> None:
    path = experiment(tmp_path, "a")
    with pytest.raises(ConfigError, match="no experiment 'z'"):
        in_order([path], ["a", "z"])
    (tmp_path / "more").mkdir()
    with pytest.raises(ConfigError, match="two files are experiment 'a'"):
        in_order([path, experiment(tmp_path / "more", "a")])
    with pytest.raises(ConfigError, match="does not exist"):
        read(tmp_path / "absent.yaml")


@pytest.fixture
def three(tmp_path: Path) -> tuple[dict[Path, Experiment], list[Cell]]:
    chosen = in_order([experiment(tmp_path, "a", seeds=2), experiment(tmp_path, "b", arms={"same": []}, seeds=2)])
    return chosen, list(cells(chosen))


class CountingRunner:
    """In the place of the one that trains: what is tested is which runs are asked for."""

    asked: list[tuple[str, str, int]]

    def __init__(self, models: Path, note: Any = print) -> None:
        pass

    async def run(self, cell: Cell) -> dict[str, Any]:
        self.asked.append((cell.experiment, cell.arm, cell.seed))
        return {"before": {"correct": 0.4}, "after": {"correct": 0.5}, "core_seconds": 1.0}


def test_a_study_that_is_run_again_computes_what_is_missing_and_nothing_twice(
    three: tuple[dict[Path, Experiment], list[Cell]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiments, wanted = three
    monkeypatch.setattr("renio_pipeline.study.runner.Runner", CountingRunner)
    monkeypatch.setattr(CountingRunner, "asked", [], raising=False)
    out = tmp_path / "study"

    def run() -> list[tuple[str, str, int]]:
        CountingRunner.asked.clear()
        study_run.run_study(experiments, out, seeds=None, jobs=1, note=lambda text: None)
        return list(CountingRunner.asked)

    # b's only arm is a's second one, so that it is never computed by itself
    assert run() == [("a", "one", 0), ("a", "other", 0), ("a", "one", 1), ("a", "other", 1)]
    assert run() == []
    assert all(Results(out).has(cell) for cell in wanted)
    lines = (out / "a.jsonl").read_text().splitlines(keepends=True)
    (out / "a.jsonl").write_text("".join(lines[:2]) + lines[2][:40])  # killed in the middle of a line
    assert run() == [("a", "one", 1), ("a", "other", 1)]
    assert (out / "a.jsonl").read_text().splitlines(keepends=True) == lines


def test_what_one_process_cannot_do_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    arms = {"one": [], "other": ["trainer.dtype=bfloat16"]}
    experiments, out = in_order([experiment(tmp_path, "a", arms=arms)]), tmp_path / "study"
    with pytest.raises(ConfigError, match=r"trainer\.dtype is bfloat16"):
        study_run.run_study(experiments, out, seeds=None, jobs=1, note=lambda text: None)
    assert not out.exists()


def test_a_torn_line_is_left_out_and_never_joined_to_the_next(
    three: tuple[dict[Path, Experiment], list[Cell]], tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"config": "k", "seed": 1}\n{"config": "k", "se')
    results = Results(tmp_path)
    assert list(results.records) == [("k", 1)]
    results.add(three[1][0], {"found": 1})
    assert [r["seed"] for r in whole_lines(path)] == [1, 0]
    assert all(json.loads(line) for line in path.read_text().splitlines())
