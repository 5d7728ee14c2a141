"""Python environments of other machines: that of somebody who only submits jobs, and that of a cluster's nodes."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.ray.runs import ROOT

# The directory that a virtual environment of this Python has its packages in.
PACKAGES = Path("lib") / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def ray_client(folder: Path) -> Path:
    """The ``bin`` of an environment with Ray's client alone, as locked; made once (some 15 s), kept in ``folder``."""
    done = folder / "complete"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "--python",
                folder / "bin/python",
                "install",
                "--quiet",
                "--no-compile",
                "--constraint",
                ROOT / "requirements-cpu.lock",
                "ray[default]",
            ],
            check=True,
        )
        done.touch()
    return folder / "bin"


def node(folder: Path) -> Path:
    """The Python of an environment with all that the project needs, and without the project.

    It is a thin layer over this one's packages, so that Ray, which copies the environment it runs in for each that installs
    something, has little to copy.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (folder / PACKAGES / "below.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin/python"
