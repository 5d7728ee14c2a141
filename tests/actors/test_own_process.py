"""An engine in a process of its own: what its node must have, and what is told if it does not start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from actors.engines import own_process
from actors.engines.own_process import QUEUE_BYTES, check_shared_memory, last_words, root_cause
from actors.errors import EngineFailed
from actors.run_checks import check_this_node
from renio_pipeline.config import ConfigError, parse
from tests.unit.conftest import make_config, values

ROOT = Path(__file__).parents[2]
ON_CPU: dict[str, Any] = {"separate_process": True, "tensor_parallel": 1, "on_gpu": False}
VLLMS = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")
CORE = "(EngineCore pid=17435) "
# As an engine in a container with the usual 64 MiB of shared memory wrote it.
SMALL_SHM = [
    f"{CORE}INFO 11-30 03:33:42 [multiproc_executor.py:153] DP group leader: node_rank=0, world_size=1",
    f"{CORE}ERROR 11-30 03:33:42 [core.py:1510] EngineCore failed to start.",
    f"{CORE}ERROR 11-30 03:33:42 [core.py:1510] Traceback (most recent call last):",
    f'{CORE}ERROR 11-30 03:33:42 [core.py:1510]   File "vllm/v1/executor/multiproc_executor.py", line 164, in _init_executor',
    f"{CORE}ERROR 11-30 03:33:42 [core.py:1510]     self.rpc_broadcast_mq = MessageQueue(",
    f"{CORE}ERROR 11-30 03:33:42 [core.py:1510] ",
    f"{CORE}ERROR 11-30 03:33:42 [core.py:1510] RuntimeError: Insufficient space in /dev/shm for shared-memory allocation: 160 "
    "MiB required, 64 MiB free. Increase /dev/shm (e.g. --shm-size or --ipc=host).",
    "Process EngineCore:",
]
WORKER = [
    "(Worker pid=7) ERROR 11-30 03:33:40 [multiproc_executor.py:800] WorkerProc failed to start.",
    "(Worker pid=7) ERROR 11-30 03:33:40 [multiproc_executor.py:800] torch.OutOfMemoryError: CUDA out of memory. Tried to",
    f"{CORE}ERROR 11-30 03:33:41 [core.py:1510] EngineCore failed to start.",
    f"{CORE}ERROR 11-30 03:33:41 [core.py:1510] Exception: WorkerProc initialization failed due to an exception in a "
    "background process. See stack trace for root cause.",
]


def with_free(free: int, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(own_process, "SHARED_MEMORY", folder)
    monkeypatch.setattr(own_process.os, "statvfs", lambda path: SimpleNamespace(f_frsize=4096, f_bavail=free // 4096))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, "separate_process"),
        ({"on_gpu": True, "tensor_parallel": 2}, "tensor_parallel"),
        ({"separate_process": False, "tensor_parallel": 2}, "tensor_parallel"),
    ],
)
def test_too_little_shared_memory_is_refused_with_the_flag_that_gives_more(
    changes: dict[str, Any], key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_free(64 * 2**20, monkeypatch, tmp_path)
    with pytest.raises(ConfigError) as caught:
        check_shared_memory("teachers.maths", **ON_CPU | changes)
    told = (
        f"teachers.maths.{key}: an engine in a process of its own needs 241 MiB of {tmp_path}, which has 64 MiB free here; give"
    )
    assert str(caught.value).startswith(told)
    assert "--shm-size=2g" in str(caught.value)
    with_free(QUEUE_BYTES, monkeypatch, tmp_path)
    check_shared_memory("teachers.maths", **ON_CPU | changes)


@pytest.mark.parametrize("changes", [{"separate_process": False}, {"on_gpu": True}])
def test_an_engine_without_queues_needs_no_shared_memory(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_free(0, monkeypatch, tmp_path)
    check_shared_memory("generator", **ON_CPU | changes)


def test_the_only_node_is_checked_before_any_engine_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_free(64 * 2**20, monkeypatch, tmp_path)
    several = {"maths": {"model": "embedded:teacher"}, "code": {"model": "embedded:teacher", "separate_process": True}}
    one, two = [{"Alive": True}, {"Alive": False}], [{"Alive": True}] * 2
    given = values(teachers=several)
    del given["teacher"]
    with pytest.raises(ConfigError, match=r"^teachers\.code\.separate_process: "):
        check_this_node(parse(given), one)
    check_this_node(parse(given), two)
    check_this_node(parse(given), one, ("generator",))
    with pytest.raises(ConfigError, match=r"^generator\.separate_process: "):
        check_this_node(make_config(generator={"separate_process": True}), one, ("generator",))
    on_torch = {"model": "embedded:teacher", "type": "torch"}
    check_this_node(make_config(teacher=on_torch), one)


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("unshare") is None, reason="not root, who can mount another /dev/shm")
def test_a_containers_default_is_too_little() -> None:
    program = (
        "from actors.engines.own_process import check_shared_memory; "
        'check_shared_memory("generator", separate_process=True, tensor_parallel=1, on_gpu=False)'
    )
    mounted = f"mount -t tmpfs -o size=64m tmpfs /dev/shm || exit 99; exec {sys.executable} -c '{program}'"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["unshare", "--mount", "sh", "-c", mounted]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode == 99 or "unshare" in ran.stderr:
        pytest.skip("mounting is not allowed here")
    assert "separate_process: an engine in a process of its own needs 241 MiB of /dev/shm, which has 64 MiB free" in ran.stderr


def test_the_cause_is_the_engines_own_error() -> None:
    cause, lines = root_cause(SMALL_SHM)
    assert cause is not None
    assert cause.startswith("RuntimeError: Insufficient space in /dev/shm for shared-memory allocation: 160 MiB required")
    assert lines[0] == "EngineCore failed to start."
    assert lines[-1] == cause
    assert all("[core.py" not in line and line for line in lines)


def test_of_a_worker_and_its_engine_the_worker_is_the_cause() -> None:
    assert root_cause(WORKER)[0] == "torch.OutOfMemoryError: CUDA out of memory. Tried to"


def test_a_process_that_was_killed_leaves_its_last_lines() -> None:
    written = [f"{CORE}INFO 11-30 03:33:42 [gpu_model_runner.py:1] Loading {i}" for i in range(40)] + [
        "",
        "Fatal Python error: Bus",
    ]
    cause, lines = root_cause(written)
    assert (cause, len(lines), lines[-1]) == (None, 20, "Fatal Python error: Bus")
    assert root_cause([]) == (None, [])


def test_what_the_process_wrote_since_its_start_is_in_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = tmp_path / "worker-1.out", tmp_path / "worker-1.err"
    out.write_text("(EngineCore pid=1) ERROR 11-30 03:33:42 [core.py:1] ValueError: of an earlier engine\n")
    monkeypatch.setattr(own_process, "log_files", lambda pid: [path for path in (out, err) if path.exists()])

    def fail() -> None:
        with last_words():
            out.write_text(out.read_text() + "\n".join(SMALL_SHM) + "\n")
            err.write_text("Traceback (most recent call last):\n")
            raise VLLMS

    with pytest.raises(EngineFailed) as caught:
        fail()
    text = str(caught.value)
    assert text.startswith("the engine's own process did not start: RuntimeError: Insufficient space in /dev/shm")
    assert "\nits last lines:\n  | EngineCore failed to start.\n" in text
    assert "earlier" not in text
    assert caught.value.__cause__ is VLLMS


def test_without_a_log_and_without_a_failure_nothing_is_changed() -> None:
    with pytest.raises(RuntimeError) as caught, last_words():
        raise VLLMS
    assert caught.value is VLLMS
    with last_words():
        pass
