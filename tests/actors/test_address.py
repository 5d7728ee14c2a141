"""A wrong address of a cluster, and folders in which a Ray of one's own could not write, are told at once, by their names."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.cluster import address
from actors.cluster.address import settled
from actors.cluster.own_folders import LONGEST_SOCKET, check_own_folders, longest_folder
from renio_pipeline import cli
from renio_pipeline.config import ConfigError

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "configs/demo.yaml")
COMMANDS = ("check", "train", "demo", "eval", "doctor")
VARIABLES = (
    "RAY_ADDRESS",
    "RAY_ENABLE_AUTO_CONNECT",
    "RAY_TMPDIR",
    "TMPDIR",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_TOKEN_PATH",
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user with a home folder, and no Ray anywhere."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(address, "local_clusters", lambda everyone=False: [])
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def short() -> Iterator[Path]:
    """A temporary folder whose path is short enough for sockets, as pytest's own is not."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="r") as folder:
        yield Path(folder)


@pytest.fixture
def unused() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def silent() -> Iterator[int]:
    """A port at which something listens that is no Ray."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def refusal(option: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        settled(option)
    return str(caught.value)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("by", ["RAY_ADDRESS", "--address"])
def test_a_dead_address_is_told_at_once_with_where_it_is_from(
    command: str, by: str, unused: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dead, option = f"127.0.0.1:{unused}", ["--address", f"127.0.0.1:{unused}"] if by == "--address" else []
    monkeypatch.setenv("RAY_ADDRESS", dead if by == "RAY_ADDRESS" else "10.255.255.1:6379")
    began = time.monotonic()
    assert cli.main([command, "--config", DEMO, *option]) == 2
    assert time.monotonic() - began < 30
    written = capsys.readouterr()
    assert written.err.startswith(f"error: {by}: no Ray cluster answers at {dead}: ")
    assert (written.err.count("\n"), written.out) == (1, "")
    assert list(Path.cwd().iterdir()) == [], "nothing was made"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            "http://10.0.0.1:8265",
            "http://10.0.0.1:8265 is the address of a dashboard, to which `ray job submit` sends jobs",
        ),
        ("http://10.0.0.1:8265", "HOST:PORT of the cluster itself, 10.0.0.1:6379 unless it was started with another --port"),
        ("https://ray.example.org/", "the cluster itself, ray.example.org:6379 unless"),
        ("ray://head:10001", "a driver must be on a node of the cluster: start it there with HOST:PORT, or submit it as a job"),
        ("nonsense", "'nonsense': expected HOST:PORT or ray://HOST:PORT of a Ray cluster"),
        ("head", "'head': expected HOST:PORT"),
        (
            "auto",
            "auto: no Ray cluster has a node on this machine; start one with `ray start --head`, or leave it out",
        ),
    ],
)
def test_what_is_no_address_of_a_cluster_is_told_what_it_is(given: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(given).startswith("--address: ")
    assert told in refusal(given)
    monkeypatch.setenv("RAY_ADDRESS", given)
    assert refusal().startswith("RAY_ADDRESS: ")
    assert told in refusal()


def test_ports_that_are_usually_something_else_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(place: tuple[str, int], timeout: float) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refuse)
    right = "; give the port of the cluster itself, 6379 unless it was started with another --port"
    assert f"port 8265 is usually the dashboard's, which takes jobs{right}" in refusal("head:8265")
    assert f"port 10001 is usually that of Ray Client{right}" in refusal("head:10001")
    assert "usually" not in refusal("head:6379")


@pytest.mark.parametrize("given", [None, "", "local"])
def test_without_an_address_a_run_has_a_ray_of_its_own(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settled(given) is None
    monkeypatch.setenv("RAY_ADDRESS", given or "")
    assert settled(None) is None


def test_auto_is_the_newest_cluster_of_this_user_and_then_of_any(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    here = f"127.0.0.1:{silent}"
    monkeypatch.setattr(address, "local_clusters", lambda everyone=False: [here] if everyone else [])
    assert str(settled("auto")) == here
    monkeypatch.setattr(address, "local_clusters", lambda everyone=False: ["10.0.0.9:1"] if everyone else [here, "10.0.0.9:2"])
    assert str(settled("auto")) == here


def test_what_listens_but_is_no_ray_cluster_is_told_in_time(silent: int, tmp_path: Path) -> None:
    """In a process of its own: Ray's attempt cannot be ended, and must not keep the process from its end either."""
    program = (
        "import sys; from actors.cluster import joining; joining.ANSWER_SECONDS, joining.TRIES = 3.0, 0; "
        "from renio_pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    environment = {**os.environ, "RAY_ADDRESS": f"127.0.0.1:{silent}", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, "check", "--config", DEMO]
    began = time.monotonic()
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert time.monotonic() - began < 30
    told = f"error: RAY_ADDRESS: something listens at 127.0.0.1:{silent}, but no Ray cluster answers there within 3 s; give the"
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1), ran.stderr
    assert ran.stderr.startswith(told)


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_temporary_folder_too_long_for_sockets_is_refused_with_the_bytes_it_may_have(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = tmp_path / ("é" * 40)
    monkeypatch.setenv(variable, str(long))
    assert cli.main(["check", "--config", DEMO]) == 2
    written = capsys.readouterr().err
    assert written.startswith(f"error: {variable}: {long} has {len(str(long)) + 40} bytes, and with more than ")
    assert written.endswith("set RAY_TMPDIR to a shorter one, such as /tmp\n")
    assert not long.exists()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    check_own_folders()


def test_the_longest_folder_is_that_with_which_rays_sockets_just_fit(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private.utils import validate_socket_filepath

    session = f"session_{time.strftime('%Y-%m-%d_%H-%M-%S')}_{123456:06d}_{os.getpid()}"
    folder = f"{short}/".ljust(longest_folder(os.getpid()), "x")
    socket_path = f"{folder}/ray/{session}/sockets/plasma_store"
    assert len(socket_path) == LONGEST_SOCKET
    validate_socket_filepath(socket_path)
    with pytest.raises(OSError, match="107 bytes"):
        validate_socket_filepath(f"{folder}x/ray/{session}/sockets/plasma_store")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    check_own_folders()
    monkeypatch.setenv("RAY_TMPDIR", f"{folder}x")
    with pytest.raises(ConfigError, match=f"with more than {len(folder)} "):
        check_own_folders()


@pytest.mark.parametrize("made", ["file", "nowhere"])
def test_folders_that_cannot_be_written_are_refused_by_the_variable(
    made: str, short: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (short / "file").touch()
    bad = str(short / "file") if made == "file" else "/proc/nowhere"  # where not even root can write
    monkeypatch.setenv("RAY_TMPDIR", bad)
    assert cli.main(["train", "--config", DEMO]) == 2
    assert capsys.readouterr().err.startswith(f"error: RAY_TMPDIR: {bad}: Ray cannot write there: ")
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("HOME", bad)
    assert cli.main(["eval", "--config", DEMO]) == 2
    written = capsys.readouterr().err
    assert written.startswith("error: HOME: Ray keeps the token of its clusters in a user's home folder, and ")
    assert f"{bad} cannot be written to" in written
    assert written.count("\n") == 1
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 32)  # then Ray needs no file
    check_own_folders()
    assert [path.name for path in short.iterdir()] == ["file"], "nothing is left"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch, silent: int) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    told = rf"^HOME: it is not set, and user {os.getuid()} has no home folder"
    with pytest.raises(ConfigError, match=told):
        settled(None)
    monkeypatch.setattr(address, "local_clusters", lambda everyone=False: [f"127.0.0.1:{silent}"])
    with pytest.raises(ConfigError, match=told):
        settled("auto")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 32)
    assert str(settled("auto")) == f"127.0.0.1:{silent}"


def test_no_call_of_ray_starts_a_cluster_by_itself() -> None:
    """A call that comes after the run's own Ray has ended, such as an actor's last answer, must not start another one."""
    program = (
        "from actors.cluster.address import settled; settled(None)\n"
        "import ray\n"
        "try: ray.get_actor('nobody')\n"
        "except Exception as error: print(error)\n"
        "print(ray.is_initialized())"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Ray has not been started yet" in found.stdout
    assert found.stdout.endswith("False\n")
