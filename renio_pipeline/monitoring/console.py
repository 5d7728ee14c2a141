"""The console output of a run: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from renio_pipeline.metrics.registry import token_rate
from renio_pipeline.types import Evaluation
from renio_pipeline.visible import visible

FIGURES = {
    "loss": "loss",
    "divergence": "divergence",
    "reward/accuracy": "accuracy",
    "reward/mean": "reward",
    "pivotal/fraction": "pivotal tokens",
    "weights/effective_sample_size": "effective samples",
    "weights/auroc": "AUROC of weights",
}
STAGES = ("generate", "score", "weigh", "train", "sync")


class PlainProgress:
    """One line per step."""

    def __init__(self, steps: int, console: Console | None = None) -> None:
        self._steps = steps
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._times: deque[float] = deque(maxlen=20)  # the end times of the latest steps

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def note(self, text: str) -> None:
        self._console.print(visible(text), markup=False)

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """Print the step. A skipped step, which has no loss, gets no line: its note says everything."""
        self._times.append(time.monotonic())
        if "loss" not in metrics:
            return
        pace = (self._times[-1] - self._times[0]) / max(1, len(self._times) - 1) or metrics["time/step"]
        left = pace * (self._steps - step)
        accuracy = f"  accuracy {metrics['reward/accuracy']:.2f}" if "reward/accuracy" in metrics else ""
        self.note(
            f"step {step}/{self._steps}  loss {metrics['loss']:.4f}{accuracy}  {token_rate(metrics):.0f} tokens/s  "
            f"{metrics['time/step']:.2f} s  {left:.0f} s left"
        )

    def evaluation(self, step: int, result: Evaluation) -> None:
        self.note(f"after step {step}: accuracy {result}")


class LiveProgress(PlainProgress):
    """A table of the stages with the run's figures, redrawn at every step."""

    def __init__(self, steps: int, console: Console) -> None:
        super().__init__(steps, console)
        self._bar = Progress(
            TextColumn("[bold]step"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("steps", total=steps)
        self._live = Live(self._bar, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def step(self, step: int, metrics: dict[str, float]) -> None:
        self._bar.update(self._task, completed=step)
        if "loss" not in metrics:
            return
        table = Table.grid(padding=(0, 2))
        table.add_row(self._stages(metrics), self._figures(metrics))
        outer = Table.grid()
        outer.add_row(table)
        outer.add_row(self._bar)
        self._live.update(outer)

    def _stages(self, metrics: dict[str, float]) -> Table:
        table = Table(*(Column(name, no_wrap=True) for name in ("stage", "seconds", "tokens/s", "idle")))
        tokens = {"generate": "tokens/generated", "score": "tokens/scored", "train": "tokens/trained"}
        pools = {"generate": "generator", "score": "teacher", "train": "trainer"}
        for stage in (stage for stage in STAGES if f"time/{stage}" in metrics):
            seconds = metrics[f"time/{stage}"]
            rate = f"{metrics[tokens[stage]] / max(seconds, 1e-9):.0f}" if stage in tokens else ""
            idle = f"{metrics[f'idle/{pools[stage]}']:.0%}" if stage in pools else ""
            table.add_row(stage, f"{seconds:.2f}", rate, idle)
        return table

    def _figures(self, metrics: dict[str, float]) -> Table:
        table = Table(*(Column(name, no_wrap=True) for name in ("figure", "value")))
        for name, label in FIGURES.items():
            if name in metrics:
                table.add_row(label, f"{metrics[name]:.3f}")
        return table


def make_progress(steps: int) -> PlainProgress:
    console = Console()
    return LiveProgress(steps, console) if console.is_terminal else PlainProgress(steps)
