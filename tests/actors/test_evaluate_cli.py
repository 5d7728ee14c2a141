"""``renio eval`` up to where engines would start, and comparisons, which start none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from renio_pipeline import cli
from renio_pipeline.evaluation.records import Problem
from tests.unit.conftest import values
from tests.unit.evaluation.test_compare import answered

SMALL = {"max_response_tokens": 48, "data": {"problems": 8}, "evaluate": {"problems": 4}, "name": "cli"}


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from actors.cluster import connection

    def refuse(address: str | None) -> Any:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(connection, "connect", refuse)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    for name in ("RENIO_TRACEBACK", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def config(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "run.yaml"
    OmegaConf.save(OmegaConf.create(values(**{**SMALL, **changes})), path)
    return str(path)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    assert cli.main(["eval", *arguments]) == code
    assert not (Path.cwd() / "evals").exists(), "bad input leaves nothing behind"
    return capsys.readouterr().err


def earlier(folder: Path, problems: list[Problem]) -> str:
    """A model's results, as an evaluation leaves them."""
    folder.mkdir(parents=True)
    (folder / "sums.jsonl").write_text("".join(p.line() for p in problems))
    return str(folder)


def test_a_teacher_that_does_not_exist_keeps_nobody_from_evaluating(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shared = {"teacher": {"model": "/nowhere"}}
    assert "Ray was started" in refusal(capsys, "--config", config(tmp_path, **shared), code=1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--suite", "aime26"], "--suite: 'aime26' is not known; did you mean aime2"),
        (["--samples", "2", "--k", "1,4"], "--k: pass@4 needs as many --samples, and held-out has 2"),
        (["--compare", "student", "teacher"], "--compare: 'teacher' is none of this evaluation's models: student"),
        (["--model", "a=embedded:student", "--model", "a=embedded:teacher"], "--model: two are named 'a'"),
        (["--model", "/nowhere"], "--model: model folder '/nowhere' does not exist"),
        (["student=/nowhere"], "student: model folder '/nowhere' does not exist"),
        (["--data", "/nowhere.jsonl"], "data.path: /nowhere.jsonl does not exist"),
        (["evaluate.markers=/nowhere.txt"], "evaluate.markers: /nowhere.txt does not exist"),
        (["evaluate.top_p=2"], "evaluate.top_p: "),
    ],
)
def test_bad_input_is_exit_code_2_before_any_engine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], told: str
) -> None:
    assert told in refusal(capsys, "--config", config(tmp_path), *arguments)


@pytest.mark.parametrize("arguments", [["--samples", "0"], ["--k", "1,x"], ["--problems", "-1"], ["--compare", "a"]])
def test_arguments_that_are_no_numbers_are_usage_errors(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["eval", "--config", "x.yaml", *arguments])
    assert exit_.value.code == 2


def test_two_earlier_results_are_compared_without_an_engine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before = earlier(tmp_path / "one/student", answered(*[(0, 1)] * 6))
    after = earlier(tmp_path / "two/trained", answered(*[(1, 1)] * 7))
    assert cli.main(["eval", "--compare", before, after]) == 0
    shown = capsys.readouterr().out
    assert "trained against student" in shown
    assert "+100.0 [+100.0, +100.0]" in shown
    assert "0.031" in shown
    assert "McNemar, exact" in shown
    assert "0 of student, 1 of trained" in shown


def test_without_a_configuration_only_a_comparison_is_possible(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--config is required" in refusal(capsys)
    assert "takes no suite" in refusal(capsys, "--compare", "a", "b", "--suite", "aime24")
    assert "--compare: a is not a folder written by renio eval" in refusal(capsys, "--compare", "a", "b")
