"""What watches over a driver ends what the driver leaves behind, whenever it dies."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import psutil
import pytest

from actors.cluster import reaper


def test_a_driver_that_dies_while_it_is_looked_at_leaves_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its children are init's by then, so that the last look finds none."""
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    looks = iter([[psutil.Process(left.pid)], []])
    ends = iter([([], [], []), ([], [], []), ([0], [], [])])
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: next(looks))
    monkeypatch.setattr(select, "select", lambda *_: next(ends))
    monkeypatch.setattr(reaper, "GRACE_SECONDS", 0.1)
    try:
        reaper.watch(os.getpid())
        assert next(looks, None) is None, "it did not look twice"
        assert left.wait(30) == -9
    finally:
        left.kill()
