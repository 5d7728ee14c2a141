"""The documents' pictures, from a run under ``ray job submit`` that Prometheus watches, which this starts and ends.

python -m tests.pictures
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from deploy.status_picture import picture
from tests.ray.runs import ROOT
from tests.ray.watched import watch

FOLDER = Path("/tmp/renio-pictures")
STEPS = 100


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    client = ROOT / f".pytest_cache/d/ray-client-{version('ray')}"  # which the tests use too
    with watch(FOLDER, client, STEPS) as found:
        assert found.server is not None, "no prometheus here (Debian: apt-get install prometheus)"
        (ROOT / "docs/pictures/status.svg").write_text(picture(found.status))
        subprocess.run(
            [
                sys.executable,
                ROOT / "deploy/grafana/picture.py",
                "--prometheus",
                found.server.url,
                "--out",
                ROOT / "docs/pictures/dashboard.png",
            ],
            check=True,
        )
    shutil.rmtree(FOLDER)


if __name__ == "__main__":
    main()
