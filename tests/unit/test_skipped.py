"""The line at the end of the tests counts what was skipped in all runs of pytest, by reasons."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest
@pytest.mark.parametrize("n", range(3))
def test_of_a_page(n): pytest.skip("no browser")
def test_of_metrics(): pytest.skip("no promtool")
def test_that_runs(): pass
"""


@pytest.mark.slow
def test_the_skips_of_several_runs_are_added_up_by_their_reasons(tmp_path: Path) -> None:
    """Each run by a pytest of its own, one of them in two processes, as ``make test`` has them."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_terminal_summary\n")
    (tmp_path / "test_one.py").write_text(TESTS)
    (tmp_path / "test_two.py").write_text("def test_that_runs_too(): pass\n")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "RENIO_SKIPPED": str(tmp_path / "skipped")}
    shown = [
        subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout.splitlines()
        for command in (
            ["pytest", "-p", "no:cacheprovider", "test_one.py"],
            ["pytest", "-p", "no:cacheprovider", "-n", "2", "test_one.py", "test_two.py"],
            ["pytest", "-p", "no:cacheprovider", "test_two.py"],
            ["tests.skipped", str(tmp_path / "skipped")],
        )
    ]
    once = "4 tests were skipped. 3: no browser; 1: no promtool"
    assert once in shown[0]
    assert once in shown[1]
    assert "no test was skipped" in shown[2]
    assert shown[3] == ["8 tests were skipped. 6: no browser; 2: no promtool"]
