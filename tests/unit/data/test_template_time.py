"""A chat template that computes for ever is refused, and one that ends in time is not disturbed."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import pytest
from transformers import AutoTokenizer

from renio_pipeline.config import ConfigError
from renio_pipeline.data import template_time
from renio_pipeline.data.chat_templates import end_warning, render
from renio_pipeline.data.template_time import TemplateTooSlowError, bounded
from renio_pipeline.types import Row
from tests.unit.conftest import DEMO

# Jinja's sandbox bounds one range, not ranges in ranges: about a century.
ENDLESS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"
)
ROW = Row(id="row-7", problem="1+1", answer="2", line=8)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_time, "CPU_SECONDS", 0.05)
    monkeypatch.setattr(template_time, "_POLL_SECONDS", 0.02)
    time.sleep(0.6)  # the watch may be in a longer sleep


def test_an_endless_template_is_refused_by_its_row(soon: None) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "student")
    tokenizer.chat_template = ENDLESS
    with pytest.raises(ConfigError, match=r"cannot make the prompt of row 'row-7' \(line 8 .*computed for more than 0\.05 s"):
        render(tokenizer, [{"role": "user", "content": "1+1"}], ROW, "student: the chat template of 'x'")
    assert end_warning(tokenizer, {2}, "x") is None  # it says nothing about the end


def test_time_that_a_thread_waits_for_is_not_counted(soon: None) -> None:
    with bounded():
        time.sleep(0.2)


def test_each_thread_has_its_own_time(soon: None) -> None:
    cut_off = threading.Semaphore(0)

    def endless() -> None:
        with suppress(TemplateTooSlowError), bounded():
            while True:
                pass
        cut_off.release()

    threads = [threading.Thread(target=endless) for _ in range(2)]
    for thread in threads:
        thread.start()
    with bounded():
        assert all(cut_off.acquire(timeout=60) for _ in threads)
    for thread in threads:
        thread.join()


def test_nothing_is_raised_after_the_context(soon: None) -> None:
    """However close the end of a rendering is to the moment at which it is cut off."""
    for _ in range(50):
        try:
            with bounded():
                until = time.thread_time() + 0.01
                while time.thread_time() < until:
                    pass
                rendering = template_time._renderings.get(threading.get_ident())
                if rendering is not None:
                    rendering.limit = 0.0  # the next look cuts it off, wherever this thread is by then
                    time.sleep(template_time._POLL_SECONDS * 0.98)
        except TemplateTooSlowError:
            pass
        for _ in range(1000):
            pass
