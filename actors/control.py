"""The run's named actor: there is one for a live run, and it dies with the driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMESPACE = "renio"


class Control:
    """What anyone on the cluster can ask of a run."""

    def __init__(self) -> None:
        self._status: dict[str, Any] = {"step": 0}

    def report(self, status: Mapping[str, Any]) -> None:
        self._status |= status

    def status(self) -> dict[str, Any]:
        return dict(self._status)
