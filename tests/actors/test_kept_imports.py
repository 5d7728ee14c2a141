"""What the collector leaves alone after imports. In a process of its own, which keeps what it froze."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import gc, weakref
from actors.cluster.kept_imports import kept_imports

class Engine:
    def __init__(self):
        self.itself = self

for first in (True, False):
    engine = Engine()
    gone, frozen = weakref.ref(engine), gc.get_freeze_count()
    with kept_imports():
        import wave
        assert not gc.isenabled()
        del engine  # garbage, in a cycle
    assert gc.isenabled()
    gc.collect()
    print(gc.get_freeze_count() > frozen, first or gone() is None)
"""


def test_a_first_import_is_kept_and_later_engines_are_not() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True True", "False True"]
