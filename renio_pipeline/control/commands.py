"""The commands of a live run: status, scale, pause, resume, checkpoint, stop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from renio_pipeline.control.protocol import Refused
from renio_pipeline.loop.run import Progress, Run
from renio_pipeline.types import Evaluation

EVENTS = 20  # that a status shows


class Events:
    """The run's latest notes, with their times."""

    def __init__(self, log: Callable[[str], None] = lambda text: None) -> None:
        """``log`` gets every note."""
        self.latest: deque[tuple[float, str]] = deque(maxlen=EVENTS)
        self._log = log

    def note(self, text: str) -> None:
        self.latest.append((time.time(), text))
        self._log(text)


class WithEvents:
    """A Progress whose notes are recorded."""

    def __init__(self, shown: Progress, events: Events) -> None:
        self._shown, self._events = shown, events

    def note(self, text: str) -> None:
        self._events.note(text)
        self._shown.note(text)

    def step(self, step: int, metrics: dict[str, float]) -> None:
        self._shown.step(step, metrics)

    def evaluation(self, step: int, result: Evaluation) -> None:
        self._shown.evaluation(step, result)


@asynccontextmanager
async def in_background(*services: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run the services concurrently with what is within the context, and cancel them at its end."""
    tasks = [asyncio.create_task(service) for service in services]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Commands:
    """``await commands(verb, arguments)``. Raises Refused, whose text says why and what is possible."""

    def __init__(self, run: Run, events: Events) -> None:
        self._run, self._events = run, events

    async def __call__(self, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        verbs: dict[str, Callable[..., Any]] = {
            "status": self.status,
            "scale": self.scale,
            "pause": self.pause,
            "resume": self.resume,
            "checkpoint": self.checkpoint,
            "stop": self.stop,
        }
        if verb not in verbs:
            raise Refused(f"{verb!r} is not a command; there are {', '.join(verbs)}")
        reply: dict[str, Any] = await verbs[verb](**({"sizes": arguments} if verb == "scale" else arguments))
        return reply

    async def status(self) -> dict[str, Any]:
        run, stages = self._run, self._run.stages
        idle = {name: run.teachers_idle.get(name, run.metrics.get(f"idle/{name}")) for name in stages.pools}
        return {
            "run": run.config.name,
            "run_dir": str(run.directory.path.absolute()),
            "state": self._state(),
            "step": run.step,
            "steps": run.config.steps,
            "version": str(run.version),
            "incarnation": run.version.incarnation,
            "pools": {n: {**p.status(), "idle": idle[n]} for n, p in stages.pools.items()} | run.fixed_pools(),
            "rejected": run.totals()["samples/rejected"],
            "replayed_steps": run.replayed["steps"],
            "metrics": run.metrics,
            "events": [list(event) for event in self._events.latest],
        }

    async def scale(self, sizes: dict[str, int]) -> dict[str, Any]:
        pools = self._run.stages.pools
        if self._run.config.deterministic:
            raise Refused("scale: a deterministic run's batches depend on its replicas; its pools keep their sizes")
        if self._run.config.placement == "colocated" and "generator" in sizes:
            raise Refused("scale: colocated generators share their GPUs with the trainer's ranks; their number is fixed")
        for name, size in sizes.items():
            if name not in pools:
                fixed = " (the trainer's size is fixed while the run goes on)" if name == "trainer" else ""
                raise Refused(f"scale: there is no pool {name!r} to scale{fixed}; there are {', '.join(pools)}")
            if not isinstance(size, int) or size < 1:
                raise Refused(f"scale: {name}={size!r}; a pool has at least 1 replica")
        for name, size in sizes.items():
            self._events.note(f"pool {name}: {pools[name].status()['target']} -> {size} replicas, as asked")
            pools[name].resize(size)
        return {name: {key: pools[name].status()[key] for key in ("target", "serving")} for name in sizes}

    async def pause(self) -> dict[str, Any]:
        await self._run.pause.begin()
        return {"state": self._state()}

    async def resume(self) -> dict[str, Any]:
        await self._run.pause.end()
        return {"state": self._state()}

    async def checkpoint(self) -> dict[str, Any]:
        """Write a checkpoint after the current step, or at once while the run is paused."""
        step, path = await self._run.ask_checkpoint()
        if path is None:
            raise Refused(f"checkpoint: the one of step {step} failed; see the run's notes")
        return {"step": step, "path": str(path)}

    async def stop(self) -> dict[str, Any]:
        self._run.stop.request()
        return {"step": self._run.step}

    def _state(self) -> str:
        pause = self._run.pause
        if self._run.stop.requested:
            return "stopping"
        if pause.requested:
            return "paused" if pause.complete else "pausing"
        return "running"
