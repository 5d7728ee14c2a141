"""Queries of the dashboard, with its variables put in as Grafana does it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.ray.prometheus_server import Prometheus
from tests.ray.runs import ROOT

PATH = ROOT / "deploy/grafana/dashboards/renio.json"
SCRAPE_SECONDS = 1.0  # of the Prometheus that is asked
RATE_SECONDS = 4 * SCRAPE_SECONDS  # over which Grafana takes a rate, at least


@dataclass(frozen=True)
class Query:
    panel: str
    expression: str
    unit: str
    instant: bool
    heatmap: bool


def queries() -> Iterator[Query]:
    for panel in _panels(json.loads(PATH.read_text())["panels"]):
        unit = panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            instant, heatmap = bool(target.get("instant")), panel["type"] == "heatmap"
            yield Query(panel["title"], target["expr"], unit, instant, heatmap)


def _panels(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Collapsed rows have their panels inside of them."""
    for panel in found:
        yield from _panels(panel.get("panels", []))
        if panel["type"] != "row":
            yield panel


def variables() -> dict[str, dict[str, Any]]:
    """By name, those that are asked of Prometheus."""
    listed = json.loads(PATH.read_text())["templating"]["list"]
    return {variable["name"]: variable for variable in listed if variable["type"] == "query"}


def values_of(name: str, chosen: Mapping[str, str], server: Prometheus, start: float, end: float) -> list[str]:
    """What the variable offers to choose from."""
    asked = resolved(variables()[name]["query"], chosen)
    match = re.fullmatch(r"label_values\((.+), (\w+)\)", asked)
    assert match, asked
    values: list[str] = server.ask(f"label/{match[2]}/values", **{"match[]": match[1], "start": start, "end": end})
    return values


def resolved(expression: str, chosen: Mapping[str, str], step: float = 1.0) -> str:
    """``chosen``: by variable; of ``several``, the regular expression that Grafana makes of them. ``step``: seconds."""
    values = {
        **chosen,
        "__interval": f"{step:g}s",
        "__rate_interval": f"{max(step + SCRAPE_SECONDS, RATE_SECONDS):g}s",
    }
    # A name begins with a letter: $1 is a group of PromQL's own. Raises KeyError for a variable that is none.
    return re.sub(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", lambda m: values[m[1] or m[2]], expression)


def several(values: list[str]) -> str:
    """Escaped twice: it becomes a regular expression, and that a string of PromQL."""
    escaped = [re.escape(value).replace("\\", r"\\") for value in values]
    return f"({'|'.join(escaped)})" if len(escaped) > 1 else escaped[0]
