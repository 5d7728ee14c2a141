"""A receiver of weights that starts in a moment, and fails when it is told to; and who publishes them."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import ray

from actors.weight_sync.chunked_arrays import join_arrays
from actors.weight_sync.client import SyncClient
from renio_pipeline.types import Version


class FakeReceiver:
    """The verbs of a receiver, with the first number of each float32 tensor in the place of an engine."""

    def __init__(self) -> None:
        self.weights: dict[str, float] = {}
        self.version = ""
        self._fails_at: tuple[str, str] = ("", "")

    def fail_at(self, verb: str, fault: str) -> int:
        """``kill`` or ``stop`` this process, or raise, at a verb's next call. Returns the process id."""
        self._fails_at = verb, fault
        return os.getpid()

    def start_weight_update(self) -> None:
        self._now("start_weight_update")
        self.weights = {}

    def update_weights(self, update_info: dict[str, Any]) -> float:
        if self.weights:  # in the middle
            self._now("update_weights")
        arrays = join_arrays(ray.get(update_info["ref"]), update_info["pieces"])
        self.weights |= {n: float(a[:4].view(np.float32)[0]) for n, a in zip(update_info["names"], arrays, strict=True)}
        return 0.0

    def finish_weight_update(self, version: Version) -> None:
        self._now("finish_weight_update")
        self.version = str(version)

    def load_adapter(self, update_info: dict[str, Any]) -> float:
        self._now("load_adapter")
        self.update_weights(update_info)
        self.version = str(update_info["version"])
        return 0.0

    def holds(self) -> tuple[str, dict[str, float]]:
        return self.version, self.weights

    def _now(self, verb: str) -> None:
        if self._fails_at[0] != verb:
            return
        fault = self._fails_at[1]
        if fault == "engine":
            from actors.errors import EngineFailed

            raise EngineFailed("its worker is gone")
        if fault == "refuse":
            raise ValueError("these weights have the wrong shape")
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[fault])


class Publisher:
    """A process that owns a copy, and can die."""

    def publish(self, pairs: list[tuple[str, Any]]) -> Any:
        from actors.weight_sync.host_sender import HostSender  # loads torch, which receivers can do without

        copy = HostSender(pairs, SyncClient([], [], seconds=3.0), rank=0).send(Version(0, 1)).copy
        assert copy is not None
        return copy

    def pid(self) -> int:
        return os.getpid()
