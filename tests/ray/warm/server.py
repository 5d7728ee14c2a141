"""Imports what a kind of worker imports, and forks for each client a process that goes on as the worker that it asks for."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import TextIO

DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG: what this process gets when its parent ends
RAY = ("ray", "ray._private.workers.default_worker", "actors.cluster.kept_imports")
IMPORTED = {
    "plain": (*RAY, "numpy", "actors.control.mailbox", "actors.pools.kinds"),
    "vllm": (
        *RAY,
        "vllm",
        "vllm.v1.engine.llm_engine",
        "vllm.v1.worker.cpu_worker",
        "vllm.model_executor.models.qwen3",
        "actors.engines.vllm_extension",
        "actors.engines.generator",
        "actors.engines.vllm_hidden_teacher",
        "actors.engines.vllm_teacher",
    ),
    "deepspeed": (
        *RAY,
        "torch",
        "deepspeed",
        "transformers.models.auto.modeling_auto",
        "transformers.models.qwen3.modeling_qwen3",
        "actors.trainer.rank",
        "actors.trainer.lora",
        "actors.engines.torch_teacher",
        "renio_pipeline.models.packed_attention",
        "renio_pipeline.models.self_checks",
        "renio_pipeline.models.student",
        "renio_pipeline.models.teacher",
    ),
}


def locked(path: Path) -> TextIO:
    """What a server holds for as long as it lives. Exits if there is one already, which may be importing still:

    a busy machine may take so long for the imports that Ray gives up the worker that asked for them, and starts another.
    """
    serving = open(f"{path}.serving", "w")  # noqa: SIM115
    try:
        fcntl.flock(serving, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit()
    return serving


def serve(path: Path, kind: str, serving: TextIO) -> None:
    """Until the process for which the folder was made is gone."""
    owner = int(path.parent.name.rpartition("-")[2])
    sys.path.remove(str(Path(__file__).parent))  # no worker has it
    gc.disable()  # as ``kept_imports`` does
    for name in IMPORTED[kind]:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()
    if (threads := threading.active_count()) > 1:
        raise RuntimeError(f"{threads} threads after the imports: a fork would lack them")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the workers: the kernel need not keep what they leave
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{path}.new")
    listening.listen(64)
    os.rename(f"{path}.new", path)
    while Path(f"/proc/{owner}").exists():
        if not select.select([listening], [], [], 2.0)[0]:
            continue
        client, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            serving.close()  # the lock is the server's alone
            become(client, path.parent)
        client.close()
    shutil.rmtree(path.parent, ignore_errors=True)


def become(client: socket.socket, folder: Path) -> None:
    """The worker that a client asks for: with its arguments, its environment, and its files. ``folder`` says which it is."""
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)  # a worker that a test has stopped does not see its client go
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    first, files, _, _ = socket.recv_fds(client, 2**16, 3)
    left = int.from_bytes(first[:4], "big") - len(first) + 4
    text = first[4:]
    while left:
        more = client.recv(left)
        if not more:  # the client was killed while it asked
            os._exit(1)
        text, left = text + more, left - len(more)
    asked = json.loads(text)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    with open(f"{folder}/{peer_of(client)}", "w") as note:  # before the worker does anything
        note.write(str(os.getpid()))
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["cwd"])
    threading.Thread(target=end_with, args=(client,), daemon=True).start()
    script, *_ = sys.argv = asked["argv"]
    sys.path.insert(0, os.path.dirname(script))
    runpy.run_path(script, run_name="__main__")
    sys.exit()


def peer_of(client: socket.socket) -> int:
    """The process at the other end."""
    pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid)


def end_with(client: socket.socket) -> None:
    """Whoever kills the client means the worker."""
    client.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    serving = locked(Path(sys.argv[1]))  # before this process ends, so that the client knows at once whether the server lives
    if os.fork():  # the server belongs to nobody: it is no descendant of the driver whose worker asked first
        os._exit(0)
    os.setsid()
    with open(f"{sys.argv[1]}.log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    serve(Path(sys.argv[1]), sys.argv[2], serving)
