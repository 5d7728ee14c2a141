"""``renio arms`` up to where engines would start, and a race that is done, which starts none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from renio_pipeline import cli
from renio_pipeline.arms.arm import arms_of
from renio_pipeline.arms.cell import write_answers
from renio_pipeline.arms.results import asked, begin
from tests.actors.test_evaluate_cli import config, no_ray

__all__ = ["no_ray"]  # a fixture

ARMS = ["--arm", "uniform:", "weighting.type=uniform", "--arm", "renio:", "weighting.type=renio"]


def test_a_race_needs_a_configuration_two_arms_and_held_out_problems(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = config(tmp_path)
    for arguments, told in (
        (ARMS, "CONFIG: no configuration is named"),
        ([file, *ARMS[:3]], "--arm: 1 given; give at least two"),
        ([file, "evaluate.problems=0", *ARMS], "evaluate.problems: 0 leaves no held-out problems"),
        ([file, *ARMS, "--config", "/nowhere.yaml"], "/nowhere.yaml does not exist"),
    ):
        assert cli.main(["arms", *arguments]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "runs").exists(), "bad input leaves nothing behind"


def test_a_race_that_is_done_is_shown_again_without_engines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file, out = config(tmp_path), tmp_path / "race"
    words = [["uniform:", "weighting.type=uniform"], ["renio:", "weighting.type=renio"]]
    begin(out, asked(arms_of([file], [], words), 3))
    for seed in range(2):
        for name, right in (("uniform", 30), ("renio", 10)):
            write_answers(out / f"seed-{seed}/{name}", {str(i): i < right for i in range(40)})
    command = ["arms", file, *ARMS, "--steps", "3", "--out", str(out)]
    assert cli.main([*command, "--seeds", "2"]) == 0
    shown = capsys.readouterr().out
    assert "uniform is clearly ahead, in each of 2 seeds: weighting.type=uniform" in shown
    race = json.loads((out / "arms.json").read_text())
    assert (race["winner"], race["overrides"]) == ("uniform", ["weighting.type=uniform"])
    assert cli.main([*command, "--seeds", "1"]) == 0
    assert "no arm is clearly ahead after 1 of 1 seeds" in capsys.readouterr().out
    assert cli.main([*command, "--steps", "4"]) == 2
    assert "has a race with other steps" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["arms", "probe"])
def test_a_teacher_that_is_to_write_analyses_first_is_refused_before_ray_starts(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Its prompt would have the analysis's place, and no analysis."""
    options = ["method.type=opsd", "teacher.model=null", "teacher.type=torch", "method.reason_first=true"]
    options += [r"prompts.teacher='{problem}{solution}{reasoning}'", f"run_dir={tmp_path}/run"]
    arms = ["--arm", "a:", "--arm", "b:", "weighting.type=uniform"] if command == "arms" else []
    given = [config(tmp_path)] if command == "arms" else ["--config", config(tmp_path)]
    assert cli.main([command, *given, *options, *arms]) == 2
    said = capsys.readouterr().err
    assert f"method.reason_first: renio {command} has no analyses written" in said
    assert not (tmp_path / "run").exists()
