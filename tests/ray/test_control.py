"""``renio status`` and its like against real drivers of a real Ray, each command from a process of its own.

Run as a program, this file is such a driver: with a mailbox, but no engines.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from renio_pipeline.control.protocol import Refused

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
STATUS = {
    "run": "one", "run_dir": "/runs/one", "state": "running", "step": 3, "steps": 9, "version": 3, "incarnation": 0,
    "pools": {"generator": {"target": 2, "serving": 1, "queue": 5, "in_flight": 7, "idle": 0.25, "restarts": 1}},
    "metrics": {"loss": 0.5, "time/step": 2.0, "tokens/generated": 300.0}, "events": [[1.7e9, "generator 1 replaced"]],
}  # fmt: skip


class FakeRun:
    """Answers at once, except for ``pause``, which is drained when a checkpoint is asked for, and else for ever."""

    def __init__(self) -> None:
        self.state = "running"
        self.drained, self.over = asyncio.Event(), asyncio.Event()

    async def handle(self, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if verb == "scale" and max(arguments.values()) > 9:
            raise Refused("generator: 99 replicas do not fit; at most 9 do")
        if verb == "scale":
            return {pool: {"target": size, "serving": 1} for pool, size in arguments.items()}
        if verb == "pause":
            self.state = "pausing"
            await self.drained.wait()
            self.state = "paused"
        elif verb == "checkpoint":
            self.drained.set()
            return {"step": 3, "path": "/runs/one/checkpoints/step_000003"}
        elif verb == "resume":
            if self.state != "paused":
                raise RuntimeError("nothing to go on from")
            self.state = "running"
            self.drained.clear()
        elif verb == "stop":
            self.over.set()
            return {"step": 3}
        return {**STATUS, "state": self.state} if verb == "status" else {"state": self.state}


async def drive(control: Any, address: str) -> None:
    from actors.control.mailbox import serve

    await control.ready.remote()
    run = FakeRun()
    print(address, flush=True)
    serving = asyncio.create_task(serve(control, run.handle))
    await run.over.wait()
    serving.cancel()
    await asyncio.wait([serving])


def main(name: str, address: str, mode: str) -> None:
    import ray

    from actors.control import mailbox

    own: dict[str, Any] = {"include_dashboard": False, "num_cpus": 4} if address == "local" else {}
    ray.init(address=address, namespace="renio", log_to_driver=False, **own)
    box = mailbox.start(name, f"/runs/{name}")
    found = ray.get_runtime_context().gcs_address
    if mode == "serve":
        asyncio.run(drive(box, found))
        ray.shutdown()
    else:
        ray.get(box.ready.remote())
        print(found, flush=True)
        for _ in sys.stdin:
            print(ray.get(box.next.remote())[1], flush=True)


class Driver:
    """A process with the run ``name``; ``address`` is the cluster's once it is up."""

    def __init__(self, name: str, address: str = "local", mode: str = "serve") -> None:
        self.name = name
        command = [sys.executable, "-m", "tests.ray.test_control", name, address, mode]
        pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment(), **pipes)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().decode().strip()
        if not self.address:
            raise AssertionError(self.process.stderr.read().decode())  # type: ignore[union-attr]

    def take(self) -> str:
        """Have a silent driver take up the next command, which it does not answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().decode().strip()

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()  # which Ray's handler makes an exit
        self.process.wait(60)


def environment(**changes: str) -> dict[str, str]:
    """Ray asks for the token that it has made on this machine."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "RENIO_"))}
    return kept | {"RAY_AUTH_MODE": "token"} | changes


def renio(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "renio_pipeline", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env or environment(), text=True, capture_output=True, timeout=200)


def answer(*arguments: str) -> dict[str, Any]:
    """What ``renio ... --json`` prints: one object, and nothing else anywhere."""
    shown = renio(*arguments, "--json", "--timeout", "100")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.count("\n") == 1
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


def fails(code: int, *arguments: str, env: dict[str, str] | None = None) -> str:
    shown = renio(*arguments, env=env)
    assert (shown.returncode, shown.stdout) == (code, ""), shown
    assert shown.stderr.startswith("error: ")
    assert "Traceback" not in shown.stderr
    return shown.stderr


def asking(*arguments: str) -> subprocess.Popen[str]:
    """A command that is waiting for its answer."""
    pipes: Any = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(
        [sys.executable, "-m", "renio_pipeline", *arguments], cwd=ROOT, env=environment(), text=True, **pipes
    )


def together(*calls: Callable[[], T]) -> list[T]:
    """What each gives; of commands that have nothing to do with each other."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [done.result() for done in [threads.submit(call) for call in calls]]


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def one() -> Iterator[Driver]:
    """A run in a Ray that its driver has started, as ``renio train`` does."""
    with Driver(f"one-{secrets.token_hex(3)}") as driver:
        yield driver


def test_every_verb_goes_there_and_back(one: Driver) -> None:
    at = ("--address", one.address)
    status, sizes = together(partial(answer, "status", *at), partial(answer, "scale", "generator=4", "teacher.maths=2", *at))
    assert status == STATUS
    assert sizes == {"generator": {"target": 4, "serving": 1}, "teacher.maths": {"target": 2, "serving": 1}}
    pausing = asking("pause", *at, "--json")
    wait_until(lambda: answer("status", *at)["state"] == "pausing", 100)  # while the pause waits
    assert pausing.poll() is None
    assert answer("checkpoint", *at) == {"step": 3, "path": "/runs/one/checkpoints/step_000003"}
    assert json.loads(pausing.communicate(timeout=100)[0]) == {"state": "paused"}
    assert answer("resume", *at) == {"state": "running"}


def test_a_person_reads_tables_and_sentences(one: Driver) -> None:
    at = ("--run", one.name, "--address", one.address)
    table, shown = together(partial(renio, "status", *at), partial(renio, "scale", "generator=4", *at))
    assert (table.returncode, table.stderr) == (0, "")
    assert "step 3/9" in table.stdout
    assert "loss 0.5000" in table.stdout
    assert (shown.stdout, shown.stderr) == (f"{one.name}: generator: 4 wanted, 1 serving now\n", "")


def test_a_refusal_and_a_failure_are_told_and_the_run_goes_on(one: Driver) -> None:
    at = ("--address", one.address)
    refusal, failure = together(partial(fails, 2, "scale", "generator=99", *at), partial(fails, 2, "resume", *at))
    assert "at most 9 do" in refusal
    assert f"run {one.name!r}: RuntimeError: nothing to go on from" in failure
    assert answer("status", *at)["state"] == "running"


def test_without_an_address_it_is_the_clusters_of_this_machine(one: Driver) -> None:
    """Whatever other clusters are up; and the token that Ray has made here is used without being asked for."""
    bare = environment()
    del bare["RAY_AUTH_MODE"]
    shown = renio("status", "--run", one.name, "--json", "--timeout", "60", env=bare)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert json.loads(shown.stdout) == STATUS


def test_several_runs_are_told_apart_and_a_dead_one_is_gone_soon(one: Driver) -> None:
    with Driver(f"two-{secrets.token_hex(3)}", one.address, "silent") as two:
        at = ("--address", one.address)
        unknown, open_, status = together(
            partial(fails, 2, "status", *at, "--run", "three"),
            partial(fails, 2, "status", *at),
            partial(renio, "status", *at, "--run", one.name, "--json", "--timeout", "100"),
        )
        assert f"no run 'three' is live at {one.address}; live are {one.name}, {two.name}" in unknown
        assert f"2 runs are live: {one.name} (at {one.address}), {two.name} (at {one.address}); say which with --run\n" in open_
        assert json.loads(status.stdout) == STATUS

        started = time.monotonic()
        text = fails(1, "pause", *at, "--run", two.name, "--timeout", "6")
        assert time.monotonic() - started < 60
        assert f"run {two.name!r}: no answer to pause within" in text
        assert "s; it is withdrawn (its driver is process" in text
        assert f"run directory /runs/{two.name})" in text

        stopping = asking("stop", *at, "--run", two.name)
        assert two.take() == "stop"  # and not the one that was withdrawn
        two.process.kill()
        started = time.monotonic()
        assert "has ended" in stopping.communicate(timeout=100)[1]
        assert stopping.returncode == 2
        wait_until(lambda: "no run" in fails(2, "status", *at, "--run", two.name), 60)
        assert time.monotonic() - started < 60
        assert answer("status", *at) == STATUS


def test_a_mailbox_that_dies_is_started_again_under_its_name(one: Driver) -> None:
    of_the_run = psutil.Process(one.process.pid).children(recursive=True)
    mailbox = next(process for process in of_the_run if "ray::Control" in " ".join(process.cmdline()))
    mailbox.kill()
    wait_until(lambda: renio("status", "--address", one.address, "--run", one.name).returncode == 0, 120)
    assert answer("status", "--address", one.address) == STATUS


def test_the_answer_to_stop_arrives_although_the_driver_leaves_at_once() -> None:
    with Driver(f"stop-{secrets.token_hex(3)}") as driver:
        assert answer("stop", "--address", driver.address, "--run", driver.name) == {"step": 3}
        assert driver.process.wait(60) == 0
    started = time.monotonic()
    assert "no Ray cluster answers at" in fails(2, "status", "--address", driver.address)
    assert time.monotonic() - started < 30


def test_what_lets_nobody_in_is_told_in_time(one: Driver) -> None:
    stranger = environment(RAY_AUTH_TOKEN="0" * 64)
    nobody, text = together(
        partial(fails, 2, "status", "--address", "127.0.0.1:1"),
        partial(fails, 2, "status", "--address", one.address, "--timeout", "60", env=stranger),
    )
    assert "no Ray cluster answers at 127.0.0.1:1" in nobody
    assert f"no way into the Ray cluster at {one.address}" in text
    assert "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in text
    assert text.count("\n") == 1


def test_a_cluster_killed_with_its_driver_while_it_was_asked(one: Driver) -> None:
    """The last test of the module: its run is gone then."""
    at = ("--address", one.address)
    pausing = asking("pause", *at)
    wait_until(lambda: answer("status", *at)["state"] == "pausing", 100)
    one.process.kill()
    text = pausing.communicate(timeout=100)[1]
    assert (pausing.returncode, text) == (2, f"error: run {one.name!r} has ended, and has not answered\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
