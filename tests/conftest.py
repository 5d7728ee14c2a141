"""What every tier of tests needs: no example fails by its time, one thread, and a line that says what was not tried."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from tests import skipped

# A machine that is busy fails no example by its time.
hypothesis.settings.register_profile("renio", deadline=None)
hypothesis.settings.load_profile("renio")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Operators of a few elements gain nothing from threads, and lose much where the cores are busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The last line of a run of pytest names the skipped tests by their reasons."""
    found = skipped.reasons(terminalreporter.stats.get("skipped", []))
    skipped.record(found, config.args)
    terminalreporter.write_line(skipped.sentence(found))
