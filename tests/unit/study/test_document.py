"""The study's page: every number from the raw results, and every reading by rule."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from renio_pipeline.cli import main
from renio_pipeline.config import ConfigError
from renio_pipeline.metrics.weight_scores import SCORES
from renio_pipeline.models import info
from renio_pipeline.run_dir import lease
from renio_pipeline.study import models, prose, reading
from renio_pipeline.study.document import text_of, write_study
from renio_pipeline.study.findings import comparisons, groups
from renio_pipeline.study.parts import parts_of
from renio_pipeline.study.plan import Experiment, cells, in_order
from renio_pipeline.study.results import Results
from renio_pipeline.study.statistics import estimate
from renio_pipeline.study.tables import shown

STUDY = Path(__file__).parents[3] / "configs/study"
ARMS = {"renio": ["weighting.type=renio"], "uniform": []}
TEACHERS = {"teacher": {"clean": [], "slow": ["trainer.lr=1e-5"]}}


def experiment(folder: Path, name: str, **changes: Any) -> Path:
    values = {
        "experiment": name,
        "title": "Title",
        "question": "Why?",
        "chosen": "So.",
        "run": str(STUDY / "run.yaml"),
        "arms": ARMS,
        "factors": TEACHERS,
        "claims": [{"better": "renio", "than": "uniform", "source": "paper"}],
    }
    path = folder / f"{name}.yaml"
    OmegaConf.save(OmegaConf.create(values | changes), path)
    return path


def trained(after: float, before: float = 0.4, seconds: float = 11.0) -> dict[str, Any]:
    end = {"correct": after, "slipped": 1 - after, "guessed": 0.0, "unfinished": 0.0, "marked": 0.0, "tokens": 33.0}
    return {
        "before": end | {"correct": before},
        "after": end,
        "core_seconds": seconds,
        "generated_tokens": 50_000,
        "trained_tokens": 80_000,
    }


def fill(experiments: dict[Path, Experiment], out: Path, gains: dict[str, float], seeds: int = 10) -> None:
    """``renio`` has that much more accuracy than ``uniform``, by the teacher, and each seed a little of its own."""
    out.mkdir(exist_ok=True)
    results = Results(out)
    for cell in cells(experiments, seeds):
        level = gains[cell.factors["teacher"]] if cell.arm == "renio" else 0.0
        noise = 0.004 * ((7 * cell.seed) % 5) * (cell.arm == "renio")
        if not results.has(cell):
            results.add(cell, trained(0.5 + 0.02 * cell.seed + level + noise))


@pytest.fixture
def study(tmp_path: Path) -> tuple[dict[Path, Experiment], Path]:
    return in_order([experiment(tmp_path, "b")]), tmp_path / "study"


def page_of(experiments: dict[Path, Experiment], out: Path) -> str:
    results = Results(out)
    return text_of(parts_of(experiments, results), results)


def outcomes(experiments: dict[Path, Experiment], out: Path) -> dict[str, str]:
    ((path, e),) = experiments.items()
    return {c.where: c.outcome for c in comparisons(e, groups(path, e, Results(out)))}


def test_a_claim_of_the_paper_holds_or_is_reversed_and_few_seeds_carry_none(
    study: tuple[dict[Path, Experiment], Path],
) -> None:
    experiments, out = study
    fill(experiments, out, {"clean": -0.06, "slow": 0.05}, seeds=9)
    assert outcomes(experiments, out) == {"clean": "no claim", "slow": "no claim"}
    fill(experiments, out, {"clean": -0.06, "slow": 0.05}, seeds=10)
    assert outcomes(experiments, out) == {"clean": "reversed", "slow": "held"}
    page = page_of(experiments, out)
    assert "put to the test 2 times: 1 held, 1 were reversed, and 0 carry no claim" in page
    assert "* **held**: (b) renio against uniform with slow: +5.8 [" in page


def test_experiments_that_share_their_runs_put_the_paper_to_one_test_and_each_name_is_told(tmp_path: Path) -> None:
    other_names = {
        "arms": {"renio": ["weighting.type=renio"], "opd": []},
        "factors": {"teacher": {"clean": [], "slower": ["trainer.lr=2e-5"]}},
        "claims": [{"better": "renio", "than": "opd", "source": "paper"}],
    }
    experiments = in_order([experiment(tmp_path, "b"), experiment(tmp_path, "g"), experiment(tmp_path, "k", **other_names)])
    out = tmp_path / "study"
    fill(experiments, out, {"clean": -0.06, "slow": 0.05, "slower": -0.06})
    page = page_of(experiments, out)
    assert "put to the test 3 times: 1 held, 2 were reversed, and 0 carry no claim. " in page
    assert "the sections below have 6 lines for these tests." in page
    told = [line for line in page.splitlines() if line.startswith(("* **held**", "* **reversed**"))]
    assert [line.split("n=10")[1] for line in told] == [
        "; the same runs: (g) with slow",
        "; the same runs: (g) with clean, (k) renio against opd with clean",
        "",
    ]
    assert told[2].startswith("* **reversed**: (k) renio against opd with slower: ")


def test_of_shared_arms_the_test_is_the_one_with_the_most_pairs(study: tuple[dict[Path, Experiment], Path]) -> None:
    experiments, out = study
    fill(experiments, out, {"clean": -0.06, "slow": 0.05})
    ((path, e),) = experiments.items()
    few, many = (next(comparisons(e, groups(path, e, Results(out), seeds))) for seeds in (3, 10))
    assert (few.difference.n, many.difference.n, few.runs) == (3, 10, many.runs)
    assert "1 times: 0 held, 1 were reversed" in reading.overall([("b", few), ("g", many)])


def test_the_sizes_of_grown_models_are_those_that_they_have() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    teacher = AutoModelForCausalLM.from_pretrained(info.resolve("embedded:teacher"), dtype=torch.float32)
    sizes = models.grown_sizes()
    assert set(sizes) == {"noticing", "noticing-half", "noticing-quarter", "noticing-none"}
    assert set(sizes.values()) == {sum(p.numel() for p in models.deepened(teacher, 6).parameters())}
    assert reading.of_size([385_000, 657_000], {"one": 1_248_000}) == (
        "The models have 385 to 657 thousand parameters; those that were grown (`one`) have 1248 thousand."
    )


def test_an_arm_is_read_over_all_cases_with_the_worst_that_an_interval_allows(
    study: tuple[dict[Path, Experiment], Path],
) -> None:
    experiments, out = study
    fill(experiments, out, {"clean": -0.06, "slow": 0.05})
    ((path, e),) = experiments.items()
    found = list(comparisons(e, groups(path, e, Results(out))))
    text = reading.of_everywhere([("b", c) for c in found], "renio", "uniform")
    assert "in 2 cases: 1 better, 1 worse, 0 no claim." in text
    worst = min(c.difference.low for c in found)
    assert -6 < worst < -5
    assert f"The lowest end of any of their intervals is {worst:.1f} points." in text
    assert text.count("\n* ") == 2
    assert reading.of_everywhere([("b", c) for c in found], "adaptive", "uniform") == ""


def test_a_difference_that_may_be_none_is_no_claim(study: tuple[dict[Path, Experiment], Path]) -> None:
    experiments, out = study
    fill(experiments, out, {"clean": -0.008, "slow": -0.007})
    assert outcomes(experiments, out) == {"clean": "no claim", "slow": "no claim"}


def test_arms_that_lost_accuracy_are_named_and_those_that_gained_are_not(
    study: tuple[dict[Path, Experiment], Path],
) -> None:
    experiments, out = study
    fill(experiments, out, {"clean": -0.35, "slow": 0.1})
    sentence = next(line for line in page_of(experiments, out).splitlines() if "ended below where they started" in line)
    assert re.search(r"less harm: renio \(clean\): -15\.2 \[-[\d.]+, -[\d.]+\] points, n=10\.$", sentence)


def of_teacher(recovers: float) -> dict[str, Any]:
    return {
        "alone": {"correct": 0.99},
        "after_slip": {"correct": recovers},
        "marked_at_once": {"slips": recovers, "right steps": 0.01},
        "own_errors": {"prefixes": 200, "before": [0.9, 0.85, 0.95], "after": [recovers / 2, recovers / 2, recovers]},
        "loss": {"right": 0.4 - recovers / 4, "after_pivotal": 0.5},
        "core_seconds": 20.0,
    }


RECOVERS = {"half-repairing": 0.1, "repairing": 0.3, "noticing": 0.6}


def regressed(folder: Path, gains: dict[str, float]) -> tuple[dict[Path, Experiment], Path]:
    """An experiment with three teachers that were measured, and one that was not where ``gains`` has it."""
    teachers = {name: [f"teacher.model=study:{name}"] for name in RECOVERS}
    more = {name: ["trainer.lr=1e-5"] for name in gains if name not in teachers}
    files = [
        experiment(folder, "b", factors={"teacher": teachers | more}, regress=True),
        experiment(folder, "t", kind="teachers", arms={"it": []}, claims=[], factors={"teacher": teachers}, seeds=1),
    ]
    experiments, out = in_order(files), folder / "study"
    fill({files[0]: experiments[files[0]]}, out, gains)
    results = Results(out)
    for cell in cells({files[1]: experiments[files[1]]}):
        results.add(cell, of_teacher(RECOVERS[cell.factors["teacher"]]))
    return experiments, out


def test_differences_are_set_against_what_each_teacher_recovers(tmp_path: Path) -> None:
    # half a point for each point that the teacher recovers, less ten
    experiments, out = regressed(tmp_path, {t: 0.5 * share - 0.1 for t, share in RECOVERS.items()} | {"unmeasured": 0.3})
    part, measured = parts_of(experiments, Results(out))
    after_slips, after_own, of_loss = part.regressions
    assert after_slips.over_teachers.slope.mean == pytest.approx(0.5)
    assert after_own.over_teachers.slope.mean == pytest.approx(1.0)
    assert of_loss.over_teachers.slope.mean == pytest.approx(-2.0)
    assert after_slips.over_seeds is not None
    assert (after_slips.over_seeds.n, after_slips.over_seeds.mean) == (10, pytest.approx(0.5))
    assert [t.where for t in after_slips.teachers] == list(RECOVERS)  # the one that was not measured is left out
    assert all(t.agrees for t in after_slips.teachers)
    assert measured.regressions == []
    page = page_of(experiments, out)
    assert "renio gains +0.50 [" in page
    assert "foretells the sign for 3 of 3." in page
    row = "| repairing | 99.0 n=1 | 30.0 n=1 | 1.0 n=1 | 30.0 n=1 | 90.0 [85.0, 95.0] n=200 | 15.0 [15.0, 30.0] n=200 |"
    assert f"{row} 32.5 n=1 | 50.0 n=1 |" in page
    assert "## (t)" not in page
    write_study(experiments, out)
    assert "b-recovery.png" in page
    assert (out / "b-recovery.png").stat().st_size > 10_000


def test_a_sign_that_the_other_teachers_do_not_foretell_is_told(tmp_path: Path) -> None:
    experiments, out = regressed(tmp_path, dict(zip(RECOVERS, (0.1, -0.1, 0.1), strict=True)))
    part, _ = parts_of(experiments, Results(out))
    assert not any(t.agrees for t in part.regressions[0].teachers)
    page = page_of(experiments, out)
    assert "foretells the sign for 0 of 3." in page
    assert re.search(r"\| repairing, recovery after a slip \| 30\.0 n=1 \| -9\.2 \[.*\| \+10\.8 n=2 \| \*\*no\*\* \|", page)


def test_tables_hold_the_mean_its_interval_and_n_of_what_the_raw_results_hold(
    study: tuple[dict[Path, Experiment], Path],
) -> None:
    experiments, out = study
    fill(experiments, out, {"clean": 0.1, "slow": 0.0}, seeds=4)
    page = page_of(experiments, out)
    records = [json.loads(line) for line in (out / "b.jsonl").read_text().splitlines()]
    for arm in ARMS:
        values = [100 * r["after"]["correct"] for r in records if r["arm"] == arm and r["factors"] == {"teacher": "clean"}]
        assert len(values) == 4
        row = next(line for line in page.splitlines() if line.startswith(f"| clean: {arm} |"))
        assert row.split("|")[2].strip() == shown(estimate(values))
        assert row.count("n=4") == 5  # every cell of numbers


def test_every_cell_of_numbers_tells_its_n_also_where_nothing_was_computed(
    study: tuple[dict[Path, Experiment], Path],
) -> None:
    experiments, out = study
    fill(experiments, out, {"clean": 0.1, "slow": 0.0}, seeds=2)
    lines = [line for line in (out / "b.jsonl").read_text().splitlines(keepends=True) if '"slow"' not in line]
    (out / "b.jsonl").write_text("".join(lines))
    page = page_of(experiments, out)
    cells_of = [line.split("|")[2:-1] for line in page.splitlines() if re.match(r"\| (clean|slow): \w+ \|", line)]
    assert len(cells_of) == 4
    assert all(re.search(r"n=\d+", cell) for row in cells_of for cell in row)
    assert "| – n=0 |" in page


def test_the_same_results_give_the_same_bytes_and_a_changed_one_another_page(
    study: tuple[dict[Path, Experiment], Path],
) -> None:
    experiments, out = study
    fill(experiments, out, {"clean": 0.1, "slow": 0.0}, seeds=3)
    page = write_study(experiments, out)
    first, picture = page.read_text(), (out / "b.png").read_bytes()
    assert page == out / "index.md"
    assert first == page_of(experiments, out)
    (out / "b.png").unlink()
    write_study(experiments, out)
    assert (out / "b.png").read_bytes() == picture
    raw = (out / "b.jsonl").read_text()
    (out / "b.jsonl").write_text(raw.replace('"correct": 0.5,', '"correct": 0.9,'))
    assert (out / "b.jsonl").read_text() != raw
    assert page_of(experiments, out) != first


def test_weights_are_compared_with_each_of_their_ablations(tmp_path: Path) -> None:
    path = experiment(
        tmp_path, "c", kind="weights", arms={"first": []}, claims=[], prefixes=[8], factors={"teacher": {"clean": []}}
    )
    experiments, out = in_order([path]), tmp_path / "study"
    out.mkdir()
    results = Results(out)
    for cell in cells(experiments, 10):
        value = dict.fromkeys(SCORES, 0.9) | {"weight": 0.95 + 0.001 * (cell.seed % 3), "no clip": 0.99}
        found = {"auroc": {"8": value, "whole": value}, "raw_weight": {"correct": 1.0, "wrong": 2.0}, "core_seconds": 4.0}
        results.add(cell, found)
    compared = list(comparisons(experiments[path], groups(path, experiments[path], results)))
    assert {c.claim.than: c.outcome for c in compared} == {
        "no threshold": "better",
        "no clip": "worse",
        "mean log-ratio": "better",
        "sequence log-ratio": "better",
    }
    page = page_of(experiments, out)
    assert "The weight's AUROC is highest with clean (0.951 [" in page


def test_the_fixed_text_holds_no_number() -> None:
    fixed = (prose.INTRODUCTION, prose.TASK, prose.TEACHERS, prose.LIMITS)
    assert not [text for text in fixed if re.search(r"\d", re.sub(r"\{[^}]*\}", "", text))]


def test_without_results_there_is_no_page_and_no_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [str(path) for path in sorted(STUDY.glob("?.yaml"))]
    assert main(["study", "--report-only", "--out", "nothing", "--config", *files]) == 2
    assert "nothing has no results" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main(["study"]) == 2
    assert "there is no configs/study here" in capsys.readouterr().err
    assert main(["study", "--jobs", "0", "--config", *files]) == 2
    assert "--jobs: 0" in capsys.readouterr().err


def test_a_study_into_a_folder_that_another_one_writes_is_refused_and_its_page_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("renio_pipeline.study.document.write_study", lambda *arguments, **options: "the page")
    monkeypatch.setattr("renio_pipeline.study.run.run_study", lambda *arguments, **options: None)
    command = ["study", "--out", str(tmp_path), "--config", *(str(path) for path in sorted(STUDY.glob("?.yaml")))]
    with lease.held(tmp_path):
        assert main(command) == 2
        assert capsys.readouterr().err.startswith(f"error: --out: {tmp_path} is held by process {os.getpid()} on ")
        assert main([*command, "--report-only"]) == 0
    assert main(command) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_page_that_is_shipped_is_the_one_that_its_raw_results_give(tmp_path: Path) -> None:
    root = STUDY.parents[1]
    out = tmp_path / "study"
    out.mkdir()
    for path in (root / "docs/study").glob("*.jsonl"):
        (out / path.name).write_bytes(path.read_bytes())
    assert page_of(in_order(sorted(STUDY.glob("?.yaml"))), out) == (root / "docs/study/index.md").read_text()


def test_an_unknown_arm_in_a_claim_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'absent' is not an arm"):
        in_order([experiment(tmp_path, "b", claims=[{"better": "absent", "than": "uniform"}])])


def test_arms_without_a_teacher_stand_beside_those_with_one(tmp_path: Path) -> None:
    arms = {"opd": [], "sft": ["method.type=sft", "objective={type: nll}", "teacher.model=null"]}
    claims = [{"better": "sft", "than": "opd"}]
    experiments, out = in_order([experiment(tmp_path, "k", arms=arms, factors={}, claims=claims)]), tmp_path / "study"
    results = Results(out)
    out.mkdir()
    for cell in cells(experiments, 10):
        results.add(cell, trained(0.5 + 0.02 * cell.seed + 0.1 * (cell.arm == "sft")))
    assert len(results.records) == 20
    assert set(outcomes(experiments, out).values()) == {"better"}
