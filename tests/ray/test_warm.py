"""A forked worker is a worker like any other: with its own arguments, environment and files, and ended with its process."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.ray import warm
from tests.ray.running_cluster import wait_until
from tests.ray.warm import client, server

SCRIPT = """
import json, os, sys, time
found = {"arguments": sys.argv, "name": os.environ["NAME"], "folder": os.getcwd(), "server": os.getppid()}
print(json.dumps(found | {"pid": os.getpid(), "modules": sorted(sys.modules), "main": __name__}), flush=True)
time.sleep(600)
"""


def start(script: Path, name: str, **more: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """What Ray would start, and what was forked for it. ``more``: of its environment."""
    environment = {key: value for key, value in os.environ.items() if key != "DS_ACCELERATOR"} | more
    started = subprocess.Popen(
        [sys.executable, "-S", "-E", warm.HERE / "client.py", script, "--of", name],
        cwd=script.parent,
        env=environment | {"NAME": name, warm.FOLDER: warm.folder()},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    return started, json.loads(started.stdout.readline())


def gone(pid: int) -> bool:
    return wait_until(lambda: not psutil.pid_exists(pid), 60, every=0.05)


@pytest.mark.timeout(400)
def test_a_forked_worker_has_what_is_its_own_and_ends_with_the_process_that_was_started(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(SCRIPT)
    (one, first), (two, second) = (start(script, name) for name in ("one", "two"))
    for name, found in (("one", first), ("two", second)):
        assert found["arguments"] == [str(script), "--of", name]
        assert (found["name"], found["folder"], found["main"]) == (name, str(tmp_path), "__main__")
        assert "ray" in found["modules"]
        assert "torch" not in found["modules"], "it is neither an engine nor a rank"
    assert first["server"] == second["server"]
    assert "server.py" in " ".join(psutil.Process(first["server"]).cmdline())
    assert first["pid"] not in (one.pid, second["pid"])
    one.kill()
    one.wait()
    assert gone(first["pid"])
    assert psutil.pid_exists(second["pid"])
    psutil.Process(second["pid"]).kill()
    two.communicate(timeout=60)
    assert gone(second["pid"])


@pytest.mark.timeout(400)
def test_it_is_found_by_the_process_that_was_started_and_ends_with_its_raylet(tmp_path: Path) -> None:
    """Whoever the raylet is: the servers are there for the raylets of all clusters."""
    script = tmp_path / "worker.py"
    script.write_text(SCRIPT)
    with subprocess.Popen(["sleep", "600"]) as raylet, subprocess.Popen(["sleep", "600"]) as another:
        started, found = start(script, "one", RAY_RAYLET_PID=str(raylet.pid))
        other, of_other = start(script, "other", RAY_RAYLET_PID=str(another.pid))
        assert found["server"] == of_other["server"]
        assert [p.pid for p in warm.with_forked([psutil.Process(started.pid)])] == [started.pid, found["pid"]]
        raylet.kill()
        started.communicate(timeout=60)
        assert gone(found["pid"])
        assert psutil.pid_exists(of_other["pid"])
        another.kill()
        other.communicate(timeout=60)
        assert gone(of_other["pid"])


def test_a_server_that_dies_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / f"renio-warm-{os.getpid()}" / "other"
    with pytest.raises(RuntimeError, match=r"has ended:(.|\n)*KeyError: 'no such kind'"):
        client.connection(str(path), "no such kind")


def test_a_folder_that_is_not_this_users_alone_is_refused(tmp_path: Path) -> None:
    """Whoever listens there gets the environment of every worker."""
    own, open_to_all, link = (tmp_path / name for name in ("own", "open", "link"))
    client.own_folder(str(own))
    client.own_folder(str(own))
    assert own.stat().st_mode & 0o777 == 0o700
    open_to_all.mkdir(mode=0o755)
    link.symlink_to(own)
    for folder in (open_to_all, link):
        with pytest.raises(PermissionError, match="is not this user's alone"):
            client.own_folder(str(folder))


def test_a_worker_that_is_stopped_ends_with_its_server(tmp_path: Path) -> None:
    """As when pytest is killed in the middle of a test that stops one."""
    script = tmp_path / "worker.py"
    script.write_text(SCRIPT)
    started, found = start(script, "one", MKL_OWN_SERVER="1")
    psutil.Process(found["pid"]).suspend()
    psutil.Process(found["server"]).kill()
    assert gone(found["pid"])
    started.kill()
    started.communicate(timeout=60)


def test_a_second_server_for_the_same_workers_ends_at_once(tmp_path: Path) -> None:
    path = tmp_path / f"renio-warm-{os.getpid()}" / "plain"
    path.parent.mkdir()
    with Path(f"{path}.serving").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        with pytest.raises(SystemExit):
            server.locked(path)
    assert [p.name for p in path.parent.iterdir()] == ["plain.serving"]
