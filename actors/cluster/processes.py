"""Worker processes: kill one that does not respond, and read the end of its log."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

LINES = 20


def end_actor(actor: Any, pid: int, group: Any = None, bundle: int = 0) -> None:
    """Kill an actor, even if its process is stopped: Ray asks a process to exit, which a stopped process does not do.

    Args:
        pid: the actor's process id; 0 if it is not known (yet).
        group: the placement group that tells which node it runs on.
    """
    import ray

    node = None
    if pid and group is not None:
        nodes: dict[int, str] = ray.util.placement_group_table(group).get("bundles_to_node_id", {})
        node = nodes.get(bundle)
    ray.kill(actor)
    if node == ray.get_runtime_context().get_node_id():
        _kill(pid)
    elif node:
        there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        ray.remote(_kill).options(num_cpus=0, scheduling_strategy=there).remote(pid)  # not needed if the node is lost


def _kill(pid: int) -> None:
    with suppress(psutil.Error, ProcessLookupError):
        title = " ".join(psutil.Process(pid).cmdline())  # empty for a zombie
        if title.startswith("ray::"):  # the id may belong to another process by now
            os.kill(pid, signal.SIGKILL)


def last_lines(pid: int, lines: int = LINES) -> str:
    """The last lines of a worker process's logs; empty if it ran on another node."""
    return "\n".join(line for path in log_files(pid) for line in _tail(path, lines))


def log_files(pid: int) -> list[Path]:
    """What a worker process of this node wrote to standard output and to standard error; none without Ray."""
    import ray

    if not pid or not ray.is_initialized():
        return []
    folder = Path(ray._private.worker._global_node.get_logs_dir_path())
    return [path for kind in ("out", "err") for path in sorted(folder.glob(f"worker-*-{pid}.{kind}"))]


def _tail(path: Path, lines: int) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 200 * lines))
        return [
            line for line in file.read().decode(errors="replace").splitlines()[-lines:] if line.strip() and not _is_rays(line)
        ]


def _is_rays(line: str) -> bool:
    return line.startswith((":job_id:", ":actor_name:", ":task_name:"))
