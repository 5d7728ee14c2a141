"""A run's log, and what reaches the terminal beside it."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from renio_pipeline.control.commands import Events
from renio_pipeline.run_dir.run_log import RunLog

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def entries(path: Path) -> list[str]:
    """The log's entries, without their times; every line is part of one."""
    lines = path.read_text().splitlines()
    assert all(re.match(TIME, line) or line.startswith("    ") for line in lines), lines
    return [entry.rstrip("\n") for entry in re.split(rf"^{TIME}", path.read_text(), flags=re.MULTILINE)[1:]]


def test_every_note_is_there_with_its_time_as_soon_as_it_is_made(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.txt")
    events = Events(log.note)
    for i in range(50):
        events.note(f"note {i}")
    assert entries(log.path) == [f"note {i}" for i in range(50)], "also those that a status does not show any more"


def test_a_resumed_run_continues_the_log(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with RunLog(tmp_path / "log.txt") as log:
            log.note(text)
    assert entries(log.path) == ["first", "second"]


def test_an_error_is_logged_with_its_traceback_and_says_where_the_log_is(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as caught, RunLog(tmp_path / "log.txt") as log:
        raise ExceptionGroup("workers", [ValueError("bad\nworse")])
    (entry,) = entries(log.path)
    assert entry.startswith("the run failed\n    ")
    assert "Traceback (most recent call last)" in entry
    assert "ValueError: bad\n" in entry
    assert caught.value.__notes__ == [f"log: {log.path}"]


def test_a_stop_by_signal_is_logged_without_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(SystemExit), RunLog(tmp_path / "log.txt") as log:
        sys.exit(143)
    assert entries(log.path) == ["the run ends early: SystemExit(143)"]


def test_a_warning_of_the_programs_own_loggers_is_logged_with_its_traceback(tmp_path: Path) -> None:
    with RunLog(tmp_path / "log.txt") as log:
        try:
            raise KeyError("k")
        except KeyError:
            logging.getLogger("actors.control.mailbox").warning("%s failed", "status", exc_info=True)
        logging.getLogger("other").warning("not ours")
    logging.getLogger("renio_pipeline.loop").warning("after the run")
    (entry,) = entries(log.path)
    assert entry.startswith("status failed\n    Traceback")
    assert entry.endswith("KeyError: 'k'")


def test_a_disk_that_is_full_does_not_stop_the_run() -> None:
    RunLog(Path("/dev/full")).note("lost")


def test_only_the_main_thread_reaches_the_terminal(tmp_path: Path) -> None:
    """In a process of its own, whose streams are those of a command."""
    code = f"""
import os, subprocess, sys
from pathlib import Path
from threading import Thread
from renio_pipeline.cli.terminal import aloud, only_the_main_thread

def heard(text):
    with aloud():
        print(text)

def elsewhere(text):
    thread = Thread(target=lambda: (print(text), print(text, file=sys.stderr)))
    thread.start()
    thread.join()

with only_the_main_thread(Path({str(tmp_path / "log.txt")!r})):
    print("step 1")
    print("warning", file=sys.stderr)
    os.write(2, b"from the C++ core\\n")
    subprocess.run(["sh", "-c", "echo from a child >&2"])
    thread = Thread(target=heard, args=("the head is lost",))
    thread.start()
    thread.join()
    elsewhere("(raylet) node 1 is dead")
elsewhere("after")
os.write(2, b"core again\\n")
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["step 1", "the head is lost", "after", "done"]
    assert sorted(done.stderr.splitlines()) == ["after", "core again", "warning"]
    assert sorted((tmp_path / "log.txt").read_text().splitlines()) == [
        "(raylet) node 1 is dead",
        "(raylet) node 1 is dead",
        "from a child",
        "from the C++ core",
    ]


def test_text_that_cannot_be_encoded_and_streams_that_are_kept_raise_nothing(tmp_path: Path) -> None:
    """A file's name may hold bytes that are no UTF-8, and a log handler that a library made during the run outlives it."""
    code = f"""
import logging, sys
from pathlib import Path
from threading import Thread
from renio_pipeline.cli.terminal import only_the_main_thread

def elsewhere(stream):
    thread = Thread(target=lambda: print("odd \\udcff name", file=stream))
    thread.start()
    thread.join()

logger = logging.getLogger("library")
with only_the_main_thread(Path({str(tmp_path / "log.txt")!r})):
    logger.addHandler(logging.StreamHandler())
    print("an odd \\udcff name", file=sys.stderr)
    elsewhere(sys.stdout)
    kept = sys.stderr
logger.warning("after the run")
elsewhere(kept)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["an odd \\udcff name", "after the run", "odd \\udcff name"]
    assert (tmp_path / "log.txt").read_text() == "odd \\udcff name\n"


def test_a_live_table_stays_on_the_terminal(tmp_path: Path) -> None:
    """The table is redrawn by a thread of its own, and prints of the main thread appear above it."""
    code = f"""
import sys, time
from pathlib import Path
from threading import Thread
from rich.console import Console
from renio_pipeline.cli.terminal import only_the_main_thread
from renio_pipeline.monitoring.console import LiveProgress

console, log = Console(force_terminal=True, width=100), Path({str(tmp_path / "log.txt")!r})
with LiveProgress(3, console) as shown, only_the_main_thread(log):
    time.sleep(0.6)
    shown.note("a note")
    print("a print")
    thread = Thread(target=print, args=("(raylet) chatter",))
    thread.start()
    thread.join()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(text in done.stdout for text in ("a note", "a print", "0/3"))
    assert "raylet" not in done.stdout
    assert (tmp_path / "log.txt").read_text() == "(raylet) chatter\n"
