"""Runs in the place of a worker's interpreter, with its arguments. It lives for as long as the process that was forked for it.

Without ``site``, and with few imports: it starts in a few hundredths of a second.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import select
import socket
import stat
import subprocess
import sys
import time

SECONDS = 300  # that a server may take for its imports
# Read when packages are imported, or before: a process that has other values needs a server of its own.
READ_EARLY = (
    *("CUDA_", "DS_", "HF_", "LANG", "LC_", "LD_", "MALLOC_", "MKL_"),
    *("OMP_", "PYTHON", "TOKENIZERS_", "TORCH", "TRANSFORMERS_", "VLLM_"),
    *("RAY_AUTH_", "RAY_JOB_ID"),  # the first job of each cluster has the same
)
# Ray reads it as it is imported, too: a worker ends once that process is gone. A server has its owner there, for all raylets.
RAYLET = "RAY_RAYLET_PID"
READ_LATE = ("VLLM_ENABLE_V1_MULTIPROCESSING", "PYTHONBREAKPOINT")


def main() -> None:
    folder = os.environ["RENIO_TESTS_WARM"]
    kind = "deepspeed" if "DS_ACCELERATOR" in os.environ else "plain"
    if "VLLM_ENABLE_V1_MULTIPROCESSING" in os.environ:
        kind = "vllm"
    early = sorted((k, v) for k, v in os.environ.items() if k.startswith(READ_EARLY) and k not in READ_LATE)
    path = f"{folder}/{kind}-{hashlib.sha256(json.dumps(early).encode()).hexdigest()[:12]}"
    with connection(path, kind) as server:
        asked = json.dumps({"argv": sys.argv[1:], "environment": dict(os.environ), "cwd": os.getcwd()}).encode()
        socket.send_fds(server, [len(asked).to_bytes(4, "big") + asked], [0, 1, 2])
        wait(server)


def wait(server: socket.socket) -> None:
    """Until the forked process ends, and with it the connection; or the raylet does, and with this client the process."""
    with contextlib.suppress(ProcessLookupError):
        raylet = os.pidfd_open(int(os.environ[RAYLET])) if RAYLET in os.environ else -1
        watched = [server] if raylet < 0 else [server, raylet]
        while True:
            ready = select.select(watched, [], [])[0]
            if raylet in ready or not server.recv(1):
                return


def own_folder(folder: str) -> None:
    """Make it. Raises PermissionError if it is somebody else's, who would get all that this user's workers get."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not this user's alone; remove it")


def is_gone(path: str) -> bool:
    """Whether no server imports or serves there: it holds that lock for as long as it lives."""
    with open(f"{path}.serving", "w") as serving:
        try:
            fcntl.flock(serving, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def connection(path: str, kind: str) -> socket.socket:
    """To the server at ``path``, which is started if it is not there. Raises RuntimeError with its log if it died."""
    own_folder(os.path.dirname(path))
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + SECONDS
        started = False
        while True:
            try:
                found.connect(path)
            except OSError:
                if not started:
                    script = os.path.join(os.path.dirname(__file__), "server.py")
                    owner = os.path.dirname(path).rpartition("-")[2]
                    subprocess.run([sys.executable, script, path, kind], env=os.environ | {RAYLET: owner}, check=True)
                    started = True
                elif is_gone(path):
                    with open(f"{path}.log") as log:
                        raise RuntimeError(f"the server at {path} has ended:\n{log.read()[-2000:]}") from None
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return found


if __name__ == "__main__":
    main()
