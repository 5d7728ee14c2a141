"""A run's directory that belongs to another user of the machine: a second user's run there is refused, and changes nothing."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from renio_pipeline.config import ConfigError
from renio_pipeline.preflight.folders import check_writable
from renio_pipeline.run_dir import lease
from renio_pipeline.run_dir.holders import this_place
from tests.unit.conftest import make_config

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs a second user")
OTHER = 4321
HERE = this_place()  # what it imports the second user cannot read


@pytest.fixture
def folder() -> Iterator[Path]:
    """The first user's run, in a place that everyone reaches."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o755)
    run = place / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("{}\n")
    yield run
    shutil.rmtree(place)


def as_the_other(action: Callable[[], object]) -> str:
    """What the action's ConfigError says to the second user; empty without one."""
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_act, args=(action, there))
    child.start()
    child.join(60)
    assert here.poll(), f"the second user's process ended with {child.exitcode}"
    return str(here.recv())


def _act(action: Callable[[], object], answer: Connection) -> None:
    os.setgroups([])
    os.setresgid(OTHER, OTHER, OTHER)
    os.setresuid(OTHER, OTHER, OTHER)
    try:
        action()
        answer.send("")
    except ConfigError as error:
        answer.send(str(error))


def hold(folder: Path) -> None:
    with lease.held(folder, takeover=True, silence_seconds=0.2, here=HERE):
        pass


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_directory_that_only_its_owner_writes_is_refused_by_its_key(folder: Path) -> None:
    told = as_the_other(lambda: check_writable(make_config(run_dir=str(folder))))
    assert told.startswith(f"run_dir: {folder} cannot be made: {folder} is not a folder that this user can write to")
    assert "Permission denied" in as_the_other(lambda: hold(folder))


def test_a_live_run_is_not_taken_over_in_a_directory_that_everyone_writes(folder: Path) -> None:
    folder.chmod(0o777)
    with lease.held(folder):
        (folder / ".lease").chmod(0o777)  # as with a umask of 0; otherwise the second user cannot even ask
        before = contents(folder)
        told = as_the_other(lambda: hold(folder))
        after = contents(folder)
    assert f"is held by process {os.getpid()} on " in told
    assert "it is alive" in told
    assert {k: v for k, v in after.items() if ".lease" not in k} == {k: v for k, v in before.items() if ".lease" not in k}
    assert set(after) == set(before)


def test_a_lease_that_its_dead_owner_left_is_the_owner_s_to_take(folder: Path) -> None:
    folder.chmod(0o777)

    def dies() -> None:
        taken = lease.held(folder)
        taken.__enter__()
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=dies)
    child.start()
    child.join(60)
    before = contents(folder)
    assert "its lease (.lease) cannot be written: Permission denied" in as_the_other(lambda: hold(folder))
    assert contents(folder) == before
    hold(folder)
