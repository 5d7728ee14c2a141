"""The tests of this folder that pytest runs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.gpu.check import Figure, Figures
from tests.gpu.runner import ROOT
from tests.gpu.settings import Settings


def own_tests(settings: Settings) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "tests/gpu", "-s", "-p", "no:cacheprovider", f"--junitxml={report}"]
        done = subprocess.run(command, cwd=ROOT)
        assert report.exists(), f"pytest ended with code {done.returncode} and without a report"
        suite = next(ET.parse(report).getroot().iter("testsuite"))
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    yield Figure("tests", counts["tests"], least=1)
    yield Figure("that failed", counts["failures"] + counts["errors"], most=0)
    yield Figure("that were skipped", counts["skipped"])
    assert done.returncode == 0, f"pytest ended with code {done.returncode}"
