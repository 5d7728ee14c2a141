"""Checks of `python -m tests.gpu` that start an engine or a second process, on a CPU with small shapes."""

from __future__ import annotations

import json
from pathlib import Path

from tests.gpu import __main__ as command
from tests.gpu import table

CHECKS = ("b-generation", "c-packed")


def test_an_engines_log_probabilities_and_the_packed_transfer_pass_here(tmp_path: Path) -> None:
    code = command.main(["--small", "--device", "cpu", "--out", str(tmp_path), "--only", *CHECKS])
    rows = json.loads((tmp_path / table.JSON).read_text())["rows"]
    assert [(row["check"], row["outcome"], row["why"]) for row in rows] == [(name, "passed", "") for name in CHECKS]
    assert code == 0
    figures = {figure["name"]: figure["value"] for row in rows for figure in row["figures"]}
    assert 0 < figures["log-probabilities, mean gap"] < 1e-4
    assert figures["wrong tensors in 20 rounds"] == 0
