"""What rows bring with them neither steers a terminal nor forges a line of the log."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from renio_pipeline import cli
from renio_pipeline.monitoring.console import PlainProgress
from renio_pipeline.run_dir.run_log import RunLog
from renio_pipeline.visible import visible

HOSTILE = "7\x1b]0;renamed\x07\x1b[2J\rstep 9/9 done\x9b31m\u202etxt.exe"


@given(st.text())
def test_nothing_but_printable_text_tabs_and_lines_is_left(text: str) -> None:
    shown = visible(text)
    assert all(c in "\n\t" or (ord(c) >= 0x20 and not 0x7F <= ord(c) < 0xA0) for c in shown)
    assert visible(shown) == shown


def test_text_of_any_script_stays() -> None:
    text = "Größe\tπ ≈ 3\n数 שלום مرحبا 👍🏽"
    assert visible(text) == text


def test_a_note_steers_no_terminal_and_forges_no_entry(tmp_path: Path) -> None:
    shown = io.StringIO()
    PlainProgress(9, Console(file=shown, force_terminal=True, highlight=False, soft_wrap=True)).note(f"row {HOSTILE}")
    RunLog(tmp_path / "log.txt").note(f"row {HOSTILE}\n2026-01-01 00:00:00 forged")
    logged = (tmp_path / "log.txt").read_text()
    assert r"\x1b]0;renamed\x07" in shown.getvalue()
    assert r"\x1b]0;renamed\x07" in logged
    assert not set(shown.getvalue() + logged) & set("\x1b\x07\r\x9b\u202e")
    assert logged.splitlines()[1].startswith("    ")


@pytest.mark.parametrize("command", ["prompts", "check"])
def test_a_row_steers_no_terminal_through_a_command(command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": f"a{HOSTILE}", "problem": f"1+{HOSTILE}", "answer": "2"}]
    rows += rows if command == "check" else []  # the same id twice is refused by its name
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [f"data.path={tmp_path}/rows.jsonl", "task=plain", "evaluate.problems=0", f"run_dir={tmp_path}/run"]
    assert cli.main([command, "--config", "configs/demo.yaml", *given]) == (0 if command == "prompts" else 2)
    out, err = capfd.readouterr()
    assert not set(out + err) & set("\x1b\x07\r\x9b\u202e")
    assert "renamed" in out + err
