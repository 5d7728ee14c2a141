"""A live run's status as text. Fields that a reply lacks are left out or shown as "-"."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from renio_pipeline.metrics.registry import token_rate
from renio_pipeline.visible import visible

EVENTS = 8  # the newest that are shown
COLUMNS = ("pool", "serving/target", "starting", "waiting", "queue", "in flight", "idle", "restarts")


def status_view(status: Mapping[str, Any]) -> RenderableType:
    """The reply to ``status``: where the run is, its pools, its last step's figures, its latest events."""
    parts: list[RenderableType] = [_head(status), _pools(status.get("pools") or {})]
    figures = _figures(status)
    if figures:
        parts.append(Text(figures))
    if status.get("run_dir"):
        parts.append(Text(visible(f"run directory: {status['run_dir']}"), overflow="fold"))
    for when, text in (status.get("events") or [])[-EVENTS:]:
        parts.append(Text(visible(f"{time.strftime('%H:%M:%S', time.localtime(when))}  {text}")))
    return Group(*parts)


def _head(status: Mapping[str, Any]) -> Text:
    head = Text.assemble((str(status.get("run", "-")), "bold"), "  ", str(status.get("state", "-")))
    head.append(f"  step {_number(status.get('step'))}/{_number(status.get('steps'))}")
    head.append(f"  version {_number(status.get('version'))}")
    if status.get("incarnation"):
        head.append(f", restart epoch {status['incarnation']}")
    return head


def _pools(pools: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)  # fits 80 columns
    for name in COLUMNS:
        table.add_column(name, no_wrap=name != "pool", overflow="fold", justify="left" if name == "pool" else "right")
    for name, pool in pools.items():
        short = pool.get("serving", 0) < pool.get("target", 0)
        size = Text(f"{_number(pool.get('serving'))}/{_number(pool.get('target'))}", style="yellow" if short else "")
        idle = f"{pool['idle']:.0%}" if pool.get("idle") is not None else "-"
        counts = (_number(pool.get(key)) for key in ("starting", "waiting", "queue", "in_flight"))
        away = Text.assemble(name, ("\nno server answers", "red")) if pool.get("away") else Text(name)
        table.add_row(away, size, *counts, idle, _number(pool.get("restarts")))
    return table


def _figures(status: Mapping[str, Any]) -> str:
    metrics = status.get("metrics") or {}
    shown = []
    if "loss" in metrics:
        shown.append(f"loss {metrics['loss']:.4f}")
    if "reward/accuracy" in metrics:
        shown.append(f"accuracy {metrics['reward/accuracy']:.2f}")
    seconds = metrics.get("time/step")
    if seconds:
        shown.append(f"{seconds:.2f} s a step")
        if "tokens/generated" in metrics:
            shown.append(f"{token_rate(metrics):.0f} tokens/s")
    for key, text in (("rejected", "quarantined"), ("replayed_steps", "steps replayed")):
        if status.get(key):
            shown.append(f"{status[key]} {text}")
    return "  ".join(shown)


def _number(value: Any) -> str:
    return "-" if value is None else str(value)


def reply_lines(run: str, verb: str, reply: Mapping[str, Any]) -> list[str]:
    """The reply to any other verb."""
    if verb == "scale":
        return [
            f"{run}: {pool}: {_number(size.get('target'))} wanted, {_number(size.get('serving'))} serving now"
            for pool, size in reply.items()
        ]
    if verb == "checkpoint":
        return [f"{run}: checkpoint of step {_number(reply.get('step'))} in {_number(reply.get('path'))}"]
    if verb == "stop":
        return [f"{run}: told to stop, at step {_number(reply.get('step'))}"]
    return [f"{run}: {_number(reply.get('state'))}"]
