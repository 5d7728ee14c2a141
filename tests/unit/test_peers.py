"""The comparison with peers: that it gives them this project's work, and what it makes of turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from renio_pipeline.config import load
from renio_pipeline.data.prompts import Cursor
from renio_pipeline.preflight import prepare
from tests.benchmarks.peers import __main__ as peers
from tests.benchmarks.peers import table, trl_trainer, turns
from tests.benchmarks.shapes import ROOT


def turn(kind: str, *seconds: float, **more: Any) -> dict[str, Any]:
    steps = [{"samples": 64, "tokens": 6400, "seconds": s, "cpu": 2 * s, "generate": s / 2} for s in seconds]
    return {"shape": "tail", "kind": kind, "steps": steps, "memory": {"a": 1e9, "b": 5e8}, "start": 9.0, **more}


def test_a_ratio_is_of_steps_of_one_round_and_a_figure_of_all_steps() -> None:
    taken = [turn("trl", 8.0), turn("this", 2.0, 4.0), turn("trl", 16.0), turn("this", 4.0)]
    trl, this = table.rows("tail", taken)
    assert (trl.kind, this.kind, trl.turns) == ("trl", "this", 2)
    assert trl.ratio is not None
    assert (trl.ratio.low, trl.ratio.median, trl.ratio.high, trl.ratio.count) == (2.0, 4.0, 4.0, 3)
    assert this.ratio is None
    assert this.figure("samples/s").median == 16.0
    assert this.figure("CPU-ms a token").high == pytest.approx(1000 * 8 / 6400)
    assert trl.figure("peak MB").median == 1500


def test_a_shape_that_was_not_measured_has_no_rows_and_one_without_this_project_no_ratio() -> None:
    assert table.rows("tail", []) == []
    (row,) = table.rows("tail", [turn("trl", 8.0)])
    assert row.ratio is None


def test_the_table_has_a_cell_for_every_column() -> None:
    text = table.markdown(table.rows("tail", [turn("trl", 8.0), turn("this", 2.0, 4.0)]), {"trl": "1"})
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1


def test_rounds_go_there_and_back_so_that_no_kind_is_always_first() -> None:
    assert list(peers._turns(["tail"], ["trl", "this"], 2)) == [
        ("tail", 0, "trl"),
        ("tail", 0, "this"),
        ("tail", 1, "this"),
        ("tail", 1, "trl"),
    ]


@pytest.mark.parametrize("kind", [*turns.KINDS])
def test_what_is_compared_has_trl_s_loss_and_no_weights(kind: str, tmp_path: Path) -> None:
    _, config = turns.config_of("tiny", tmp_path, 1, **turns.overrides("tiny", kind))
    objective = config.objective
    assert (objective.type, objective.beta, objective.normalization) == ("jsd", 0.0, "token")  # type: ignore[union-attr]
    assert config.weighting.type == "uniform"
    assert config.max_staleness == (kind == "this-ahead")


@pytest.mark.slow
def test_trl_is_given_the_prompts_that_the_run_draws() -> None:
    config = load(ROOT / "configs/demo.yaml", ["steps=2", "batch_size=3", "data.problems=4", "evaluate.problems=0"])
    prepared = prepare(config)
    texts = list(trl_trainer._prompts(config, prepared)["prompt"])
    drawn = Cursor(prepared.prompt_ids, prepared.rows, config).take(6)
    assert prepared.tokenizer(texts)["input_ids"] == [p.student_ids.tolist() for p in drawn]


@pytest.mark.parametrize("setting", ["objective.normalization=sample", "objective.token_clip=1.0"])
def test_a_loss_that_trl_does_not_have_is_refused(setting: str, tmp_path: Path) -> None:
    settings = ["objective={type: jsd, normalization: token}", setting]
    with pytest.raises(ValueError, match="mean over tokens"):
        trl_trainer.make(load(ROOT / "configs/demo.yaml", settings), tmp_path, "shipped")
