"""What every tier of tests needs: no example fails by its time, one thread, and a line that says what was not tried."""

from __future__ import annotations

import os
from typing import Any

import hypothesis
import pytest

from tests import skipped

# A machine that is busy fails no example by its time.
hypothesis.settings.register_profile("renio", deadline=None)
hypothesis.settings.load_profile("renio")
# Each process has one thread, before it imports torch, and so has what it starts. Operators of a few elements gain nothing from
# more, and lose much where the cores are busy: threads wait for each other by spinning.
for variable, value in (("OMP_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "passive")):
    os.environ.setdefault(variable, value)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The last line of a run of pytest names the skipped tests by their reasons."""
    found = skipped.reasons(terminalreporter.stats.get("skipped", []))
    skipped.record(found, config.args)
    terminalreporter.write_line(skipped.sentence(found))
