"""Workers of Ray that are forked from a process which has imported vLLM or DeepSpeed already.

Nearly all the time that an engine or a rank of the demo's size takes to start is its imports: four to six seconds of a core, of
which the suite would pay for more than a hundred. Ray lets a job choose the command that runs its workers (``py_executable``).
Here that is ``client.py``, which asks a server (``server.py``) to fork, in the place of a new interpreter. Each environment has
a server of its own, which imports what such a worker imports, as such a worker does.

What a fork cannot show is shown by runs that do without: those on clusters that ``ray start`` began (``watched_run``, and
those of ``test_service.py``), and the one whose driver is killed, after which nothing of its own Ray may remain. With
RENIO_TESTS_FORKED=0 in the environment, every worker is a new interpreter.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

FOLDER = "RENIO_TESTS_WARM"  # the variable that has the servers' folder: its name ends with the process that they live for
HERE = Path(__file__).parent


def owner() -> int:
    """The process of the whole session: of pytest-xdist's workers, that is the one that started them."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


def folder() -> str:
    return f"/tmp/renio-warm-{owner()}"  # short: a socket's path has a limit


def runtime_env() -> dict[str, Any]:
    """For ``ray.init``."""
    if os.environ.get("RENIO_TESTS_FORKED") == "0":
        return {}
    return {"py_executable": f"{sys.executable} -S -E {HERE / 'client.py'}", "env_vars": {FOLDER: folder()}}


def for_drivers() -> dict[str, str]:
    """Variables with which a driver in a process of its own gives ``runtime_env`` to its workers, as a submitted job does."""
    if not (env := runtime_env()):
        return {}
    return {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": env}), "RAY_prestart_worker_first_driver": "0"}


def with_forked(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Processes, and those that were forked for some of them, which are the server's children and not theirs."""
    found = list(processes)
    for process in list(found):
        # ValueError: it is being written
        with contextlib.suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
            note = Path(folder(), str(process.pid))
            if note.stat().st_mtime > process.create_time() - 1:  # otherwise it is of an earlier process with this number
                found.append(psutil.Process(int(note.read_text())))
    return found
