"""``renio doctor``: what its probes find on this machine. Starts no cluster."""

from __future__ import annotations

import importlib.metadata
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors.doctor import shared_folder
from actors.doctor.examiner import Examiner
from actors.doctor.probes import code_digest, machine, nvidia_smi, software
from renio_pipeline.config import ConfigError
from tests.ray.ports import free_port


def test_versions_are_told_without_importing_any_package() -> None:
    program = (
        "import sys\nfrom actors.doctor.probes import software\nfound = software(['torch', 'vllm', 'no-such-package'])\n"
        "print(sorted(found['packages']), found['torch_cuda'], [m for m in ('torch', 'vllm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "['torch'] None []\n"  # the tests' own torch is built without CUDA
    assert software(["torch"])["packages"] == {"torch": importlib.metadata.version("torch")}


def test_a_changed_source_file_changes_the_digest(tmp_path: Path) -> None:
    for package in ("actors", "renio_pipeline"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    program = f"import runpy\nprint(runpy.run_path({machine.__code__.co_filename!r})['code_digest']())"

    def digest() -> str:
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    before = digest()
    assert before not in ("None", code_digest())
    (tmp_path / "actors/new.py").write_text("x = 1\n")
    assert digest() not in ("None", before)


@pytest.mark.parametrize(
    ("script", "report", "error"),
    [
        ('#!/bin/sh\necho "$@"\n', "-q -x\n", ""),
        ("#!/bin/sh\necho no devices >&2\nexit 9\n", None, "nvidia-smi failed: no devices"),
        (None, None, "nvidia-smi is not on the PATH"),
    ],
    ids=["works", "fails", "absent"],
)
def test_nvidia_smi_is_run_or_it_is_told_why_not(
    script: str | None, report: str | None, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(script)
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_smi() == (report, error)


def test_a_socket_is_reached_only_if_the_right_examiner_answers() -> None:
    here, other = Examiner("here"), Examiner("other")
    port = here.listen()
    closed = free_port()
    found = other.reach(
        [("a", "127.0.0.1", port, "here"), ("b", "127.0.0.1", port, "elsewhere"), ("c", "127.0.0.1", closed, "c")], 5.0
    )
    assert found == [("a", port, None), ("b", port, "something else answers at 127.0.0.1"), ("c", closed, "Connection refused")]


def test_what_does_not_answer_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port, begun = silent.getsockname()[1], time.monotonic()
        assert Examiner("me").reach([("a", "127.0.0.1", port, "a")], 0.3) == [("a", port, "timed out")]
        assert time.monotonic() - begun < 5.0


def test_a_folder_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for folder in (tmp_path / "old", tmp_path / "new/deeper"):
        assert shared_folder.probe(str(folder), {}, 1.0) == {}
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["old"]


def test_a_folder_that_the_driver_cannot_make_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run_dir: the driver cannot write into .*/file/run: Not a directory; "):
        shared_folder.probe(str(tmp_path / "file/run"), {}, 1.0)
