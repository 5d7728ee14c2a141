"""``renio probe`` up to where engines would start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from renio_pipeline import cli
from tests.actors.test_evaluate_cli import config, no_ray

__all__ = ["no_ray"]  # a fixture


def refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: str, code: int = 2, **changes: Any) -> str:
    assert cli.main(["probe", "--config", config(tmp_path, **changes), *arguments]) == code
    assert not (tmp_path / "runs").exists(), "bad input leaves nothing behind"
    return capsys.readouterr().err


def test_results_overwrite_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").touch()
    assert "--out: there is not empty" in refusal(capsys, tmp_path, "--out", "there")
    assert "--out: there/file/x cannot be created" in refusal(capsys, tmp_path, "--out", "there/file/x")
    (tmp_path / "taken").touch()
    assert "run_dir: taken/run cannot be made" in refusal(capsys, tmp_path, "run_dir=taken/run")


@pytest.mark.parametrize("size", ["0", "-1", "2.5", "many"])
def test_sizes_are_whole_numbers_from_one_on(capsys: pytest.CaptureFixture[str], tmp_path: Path, size: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        refusal(capsys, tmp_path, f"--responses={size}")
    assert f"--responses: {size!r} is no number from 1 on" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_told_before_ray_starts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "teacher.model" in refusal(capsys, tmp_path, "teacher.model=/nowhere")


@pytest.mark.parametrize("objective", ["jsd", "top_k_forward_kl", "sampled"])
def test_teachers_of_every_objective_are_probed(capsys: pytest.CaptureFixture[str], tmp_path: Path, objective: str) -> None:
    assert "Ray was started" in refusal(capsys, tmp_path, f"objective.type={objective}", code=1)
