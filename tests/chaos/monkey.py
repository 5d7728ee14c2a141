"""Kills and stops workers of a live run, one after the other, and its driver once.

    with Monkey(folder, seed=0, overrides=[...]) as monkey:
        monkey.rampage(20)
        monkey.finish()

The next victim is chosen once the last one's place is taken: every pool serves in full, and a step has ended since.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import psutil

from tests.ray import warm

ROOT = Path(__file__).parents[2]
RUN = "chaos"
# The title that Ray gives a process begins with the class of its actor.
VICTIMS = {"generator": "ray::Generator", "teacher": "ray::Teacher", "trainer": "ray::TrainerRank", "weighting": "ray::Weigher"}
POOLS = ("generator", "teacher", "trainer")
SMALL = [f"pools.{pool}.cpus=0.2" for pool in POOLS]
TWO_OF_EACH = [f"pools.{pool}.replicas=2" for pool in POOLS]


@dataclass(frozen=True)
class Blow:
    pool: str
    how: str  # SIGKILL or SIGSTOP
    step: int  # that the run had done
    seconds: float  # until the run was whole again


@dataclass
class Monkey:
    folder: Path  # the run directory
    seed: int
    overrides: list[str]
    command: str = "train"
    patience: float = 300.0  # seconds that a recovery may take
    forked: bool = False  # the workers are, which saves their imports: see ``tests.ray.warm``
    blows: list[Blow] = field(default_factory=list)
    driver: subprocess.Popen[bytes] = field(init=False)

    def __enter__(self) -> Self:
        self._random = random.Random(self.seed)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._log: TextIO = self.folder.with_suffix(".log").open("a")
        self._line: subprocess.Popen[str] | None = None
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave()
        if self.driver.poll() is None:
            self.driver.kill()
            self.driver.wait()
        self._log.close()

    @property
    def log(self) -> str:
        return self.folder.with_suffix(".log").read_text()

    def start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        environment |= warm.for_drivers() if self.forked else {}
        self.driver = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "renio_pipeline",
                self.command,
                "--config",
                "configs/demo.yaml",
                f"name={RUN}",
                f"run_dir={self.folder}",
                *SMALL,
                *self.overrides,
                "--resume",
            ],
            cwd=ROOT,
            env=environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self.whole()

    def status(self) -> dict[str, Any] | None:
        """What ``renio status`` says; None while nobody answers."""
        assert self.driver.poll() is None, f"the driver has ended with {self.driver.returncode}:\n{self.log[-4000:]}"
        try:
            return self.ask("status")
        except ConnectionError:
            return None

    def ask(self, verb: str, seconds: float = 30.0, **arguments: Any) -> dict[str, Any]:
        """A command to the run, as ``renio`` would give it. Raises ConnectionError if there is no answer."""
        if self._line is None:
            address = self._address()
            if address is None:
                raise ConnectionError("the driver has no Ray yet")
            command = [sys.executable, "-m", "tests.chaos.line", RUN, address]
            self._line = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
            )
        assert self._line.stdin is not None
        assert self._line.stdout is not None
        try:
            self._line.stdin.write(json.dumps([verb, arguments, seconds]) + "\n")
            self._line.stdin.flush()
            found: dict[str, Any] = json.loads(self._line.stdout.readline())
        except (OSError, ValueError):
            self._leave()
            raise ConnectionError(f"no answer to {verb}") from None
        return found

    def whole(self, after_step: int = -1) -> dict[str, Any]:
        """Wait until every pool serves in full, and a step after ``after_step`` has ended."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            found = self.status()
            if (
                found
                and all(pool["serving"] == pool["target"] for pool in found["pools"].values())
                and found["step"] > after_step
            ):
                return found
            time.sleep(0.5)
        raise AssertionError(f"the run was not whole again in {self.patience:g} s: {found}\n{self.log[-3000:]}")

    def strike(self, *hits: tuple[str, str]) -> None:
        """Hit a worker of each named pool with the named signal, all at once, and wait until they are made good."""
        before = self.whole()
        victims = {pool: self._victim(pool) for pool, _ in hits}
        started = time.monotonic()
        for pool, how in hits:
            victims[pool].send_signal(getattr(signal, how))
        for pool in victims:
            self._until(lambda s, pool=pool: s["pools"][pool]["restarts"] > before["pools"][pool]["restarts"])
        self.whole(before["step"])
        seconds = time.monotonic() - started
        for pool, how in hits:
            victim = victims[pool]
            assert not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE, (
                f"{how} {pool}: the victim is still there"
            )
            self.blows.append(Blow(pool, how, before["step"], seconds))
            print(f"{len(self.blows)}: {how} {pool} at step {before['step']}: whole again after {seconds:.0f} s", flush=True)

    def _victim(self, pool: str) -> psutil.Process:
        found = [p for p in self._processes() if _title(p).startswith(VICTIMS[pool])]
        return self._random.choice(sorted(found, key=lambda p: p.pid))

    def rampage(self, count: int) -> None:
        for _ in range(count):
            self.strike((self._random.choice(sorted(VICTIMS)), self._random.choice(["SIGKILL", "SIGSTOP"])))

    def kill_driver(self) -> None:
        """Kill it, see that it leaves nothing, and start it again, as a job's back-off would."""
        left = [p for p in self._processes() if p.pid != self.driver.pid]
        self._leave()
        self.driver.kill()
        self.driver.wait()
        _, alive = psutil.wait_procs(left, timeout=60)
        assert not alive, f"a minute after the driver's death there still are {[_title(p) for p in alive]}"
        self.start()
        print(f"driver killed and started again after {len(self.blows)} blows", flush=True)

    def finish(self, timeout: float = 1200.0) -> None:
        self._leave()
        code = self.driver.wait(timeout)
        assert code == 0, f"exit code {code}:\n{self.log[-4000:]}"

    def _until(self, condition: Any) -> None:
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            found = self.status()
            if found and condition(found):
                return
            time.sleep(0.5)
        raise AssertionError(f"the loss was not noticed in {self.patience:g} s\n{self.log[-4000:]}")

    def _processes(self) -> list[psutil.Process]:
        return warm.with_forked(psutil.Process(self.driver.pid).children(recursive=True))

    def _address(self) -> str | None:
        """Of the Ray that the driver has started."""
        arguments = (a for process in self._processes() for a in _command(process))
        return next((a.partition("=")[2] for a in arguments if a.startswith("--gcs-address=")), None)

    def _leave(self) -> None:
        if self._line is not None:
            line, self._line = self._line, None
            line.kill()
            line.communicate()


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _title(process: psutil.Process) -> str:
    return " ".join(_command(process))
