"""Runs tests that need pytest to be run: with fixtures or parameters, or as methods of a class that is no TestCase.

The module of the tests has been executed already; pytest collects from it and runs what it finds.
"""

from __future__ import annotations

import os
import sys
import types
from typing import Any

from renio_pipeline.sandbox.exchange import remote

_FILE = "tests.py"
_OPTIONS = ("-q", "-p", "no:cacheprovider", "-p", "no:assertion", "--capture=sys", "--noconftest", "--rootdir=.")


def run(code: str) -> None:
    """Raises AssertionError: a test failed, or none ran."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    import pytest

    class OfThisModule(pytest.Module):
        def _getobj(self) -> Any:
            """Without the program's names, which may look like those of tests."""
            module = types.ModuleType("tests")
            module.__dict__.update({k: v for k, v in vars(sys.modules["__main__"]).items() if remote.held(v) is None})
            return module

    class Plugin:
        passed = 0

        def pytest_pycollect_makemodule(self, module_path: Any, parent: Any) -> Any:
            return OfThisModule.from_parent(parent, path=module_path)

        def pytest_runtest_logreport(self, report: Any) -> None:
            self.passed += report.when == "call" and report.passed

    with open(_FILE, "w", encoding="utf-8") as file:
        file.write(code)
    plugin = Plugin()
    ended = pytest.main([*_OPTIONS, "-c", os.devnull, _FILE], plugins=[plugin])
    assert ended == pytest.ExitCode.OK, "the tests failed"
    assert plugin.passed, "no test ran"
