"""What rows bring with them neither steers a terminal nor forges a line of the log."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from renio_pipeline import cli
from renio_pipeline.control.status_view import status_view
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


def test_the_status_of_a_run_steers_no_terminal() -> None:
    shown = io.StringIO()
    status = {"run": "a", "run_dir": f"/runs/{HOSTILE}", "events": [[0.0, f"row {HOSTILE}"]]}
    Console(file=shown, force_terminal=False).print(status_view(status))
    assert shown.getvalue().count(r"\x1b]0;renamed") == 2
    assert not set(shown.getvalue()) & set("\x1b\x07\r\x9b\u202e")


def test_whatever_a_command_prints_is_constant_or_made_visible() -> None:
    """JSON is for programs, and has escapes of its own."""
    bare = []
    for path in sorted(Path(cli.__file__).parent.glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print":
                first = call.args[0]
                made = ast.unparse(first.func) if isinstance(first, ast.Call) else ""
                if not (isinstance(first, ast.Constant) or made in ("visible", "json.dumps") or made.startswith("visible(")):
                    bare.append(f"{path.name}:{call.lineno}: {ast.unparse(first)}")
    assert bare == []
