"""Workers of Ray that are forked from a process which has imported vLLM or DeepSpeed already.

Nearly all the time that an engine or a rank of the demo's size takes to start is its imports: four to six seconds of a core, of
which the suite would pay for more than a hundred. Ray lets a job choose the command that runs its workers (``py_executable``).
Here that is ``client.py``, which asks a server (``server.py``) to fork, in the place of a new interpreter. Each environment has
a server of its own, which imports what such a worker imports, as such a worker does.

What a fork cannot show is shown by drivers with a Ray of their own, and those on a running cluster, which do without. With
RENIO_TESTS_FORKED=0 in the environment, every worker is a new interpreter.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

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
