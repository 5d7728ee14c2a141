"""A picture of the dashboard: each panel in its place, with what its queries give.

python deploy/grafana/picture.py --prometheus http://127.0.0.1:9090 --out docs/pictures/dashboard.png
"""

from __future__ import annotations

import argparse
import io
import json
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import yaml
from matplotlib.figure import Figure
from PIL import Image

BOARD = Path(__file__).parent / "dashboards" / "renio.json"
COLUMN, ROW = 0.6, 0.34  # inches of the grid's cell
POINTS = 120
PAGE, PANEL, TEXT = "#111217", "#181b1f", "#ccccdc"
LINES = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#fade2a"]
COLOURS = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "text": TEXT}
Series = dict[str, Any]  # as Prometheus' API gives it


@dataclass(frozen=True)
class Server:
    """A Prometheus, and the time in which it has seen the run."""

    url: str
    run: str
    start: float
    end: float
    rate_seconds: float

    def ask(self, target: dict[str, Any]) -> list[Series]:
        """What a panel's query gives: over time, or at the end."""
        expr = (
            target["expr"]
            .replace("$__rate_interval", f"{self.rate_seconds:.0f}s")
            .replace("$run", self.run)
            .replace("$pool", ".*")
        )
        if target["instant"]:
            found = get(self.url, "query", query=expr, time=self.end)["result"]
        else:
            step = max(1.0, (self.end - self.start) / POINTS)
            found = get(self.url, "query_range", query=expr, start=self.start, end=self.end, step=step)["result"]
        return [series | {"name": legend(target["legendFormat"], series["metric"])} for series in found]


def get(url: str, verb: str, **arguments: Any) -> Any:
    with urllib.request.urlopen(f"{url}/api/v1/{verb}?{urllib.parse.urlencode(arguments)}", timeout=30) as answer:
        return json.load(answer)["data"]


def server_of(url: str, run: str | None) -> Server:
    """Raises SystemExit if it has seen no run in the last six hours."""
    now = float(get(url, "query", query="time()")["result"][0])
    found = get(url, "query", query="renio_step[6h]", time=now)["result"]
    seen = {s["metric"]["run"]: s["values"] for s in found if run in (None, s["metric"]["run"])}
    if not seen:
        raise SystemExit(f"--prometheus {url} has seen no run{f' {run}' if run else ''} in six hours; is metrics_port set?")
    name = max(seen, key=lambda r: seen[r][-1][0])
    config = yaml.safe_load(get(url, "status/config")["yaml"])
    interval = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", config["global"]["scrape_interval"])
    assert interval is not None
    scrape = 60 * int(interval[1] or 0) + int(interval[2] or 0)
    return Server(
        url, name, seen[name][0][0], seen[name][-1][0], max(4 * scrape, (seen[name][-1][0] - seen[name][0][0]) / POINTS)
    )


def legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda m: labels.get(m[1], ""), template)


def formatted(value: float, unit: str) -> str:
    """
    >>> formatted(0.5, "percentunit"), formatted(2048, "bytes"), formatted(90, "s"), formatted(3, "suffix: nats")
    ('50%', '2.05 kB', '1.5 min', '3 nats')
    """
    if unit == "percentunit":
        return f"{value:.0%}" if abs(value) >= 0.1 or not value else f"{value:.1%}"
    if unit == "percent":
        return f"{value:.0f}%"
    if unit == "s" and value >= 60:
        return f"{value / 60:.3g} min"
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if unit in ("bytes", "Bps") and abs(value) >= size:
            return f"{value / size:.3g} {prefix}{'B' if unit == 'bytes' else 'B/s'}"
    shown = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{shown} {unit.removeprefix('suffix: ')}" if unit.startswith("suffix: ") else f"{shown} s" if unit == "s" else shown


@mpl.rc_context({"font.size": 7, "text.color": TEXT, "axes.edgecolor": "#2c3235", "xtick.color": TEXT, "ytick.color": TEXT})
def draw(board: dict[str, Any], server: Server) -> Figure:
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    figure = Figure(figsize=(24 * COLUMN, height * ROW), facecolor=PAGE)
    for panel in board["panels"]:
        place = panel["gridPos"]
        left, bottom = place["x"] / 24, 1 - (place["y"] + place["h"]) / height
        if panel["type"] == "row":
            figure.text(left + 0.005, bottom + 0.3 / height, panel["title"], fontsize=10, weight="bold")
            continue
        box = (left + 0.003, bottom + 0.15 / height, place["w"] / 24 - 0.006, (place["h"] - 0.3) / height)
        figure.add_artist(mpl.patches.Rectangle(box[:2], *box[2:], transform=figure.transFigure, color=PANEL, zorder=-1))
        suffix = panel["fieldConfig"]["defaults"]["unit"].partition("suffix: ")[2]
        title = f"{panel['title']}  [{suffix}]" if suffix else panel["title"]
        figure.text(box[0] + 0.006, box[1] + box[3] - 0.75 / height, title, fontsize=8, weight="bold")
        answers = [series for target in panel["targets"] for series in server.ask(target)]
        inner = (box[0] + 0.035, box[1] + 1.7 / height, box[2] - 0.042, box[3] - 2.9 / height)
        if not answers:
            figure.text(box[0] + box[2] / 2, box[1] + box[3] / 2, "no data", ha="center", color="#8e8e8e")
        elif panel["targets"][0]["instant"]:
            numbers(figure, panel, box, answers)
        else:
            axes = figure.add_axes(inner, facecolor=PANEL)
            (heat if panel["type"] == "heatmap" else curves)(axes, panel, answers, server)
    return figure


def numbers(figure: Figure, panel: dict[str, Any], box: tuple[float, float, float, float], answers: list[Series]) -> None:
    """A stat's one value, or a bar for each of a gauge."""
    x, y, width, height = box
    unit, steps = panel["fieldConfig"]["defaults"]["unit"], panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    for i, series in enumerate(answers):
        value = float(series["value"][1])
        colour = COLOURS[[s["color"] for s in steps if s["value"] is None or value >= s["value"]][-1]]
        if panel["type"] == "bargauge":
            at, thick = y + height * (0.72 - 0.68 * (i + 1) / len(answers)), height * 0.5 / len(answers)
            full = width * 0.55
            for length, shade in ((full, "#2c3235"), (full * min(1.0, max(0.0, value)), colour)):
                bar = mpl.patches.Rectangle((x + width * 0.25, at), length, thick, transform=figure.transFigure, color=shade)
                figure.add_artist(bar)
            figure.text(x + width * 0.23, at + thick / 2, series["name"], ha="right", va="center")
            figure.text(x + width * 0.82, at + thick / 2, formatted(value, unit), va="center", fontsize=9, color=colour)
        else:
            named = panel["options"]["textMode"] == "value_and_name"
            text = f"{series['name']}\n{formatted(value, unit)}" if named else formatted(value, unit)
            figure.text(x + width / 2, y + height * 0.4, text, ha="center", va="center", fontsize=16, color=colour)


def curves(axes: Any, panel: dict[str, Any], answers: list[Series], server: Server) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    lines = [(s["name"], *np.array(s["values"], dtype=float).T) for s in answers]
    if defaults["custom"].get("stacking", {}).get("mode") == "normal":
        times = sorted({t for _, at, _ in lines for t in at})
        filled = [np.interp(times, at, np.nan_to_num(values)) for _, at, values in lines]
        axes.stackplot(np.array(times) - server.start, filled, labels=[name for name, _, _ in lines], colors=LINES, alpha=0.8)
    else:
        for i, (name, at, values) in enumerate(lines):
            axes.plot(at - server.start, values, label=name, color=LINES[i % len(LINES)], linewidth=1.2)
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is not None:
            axes.axhline(step["value"], color=COLOURS[step["color"]], linewidth=0.7, linestyle="--")
    finite = [value for *_, values in lines for value in values if np.isfinite(value)] or [0.0]
    low, high = axes.get_ylim()
    axes.set_ylim(low if min(finite) < 0 else 0.0, 1.05 * high if max(finite) > 0 else 1.0)
    finish(axes, server, defaults["unit"])
    shown = [part[:8] for part in axes.get_legend_handles_labels()]  # more have no room
    style = {"ncols": 4, "frameon": False, "fontsize": 6, "labelcolor": TEXT, "handlelength": 1}
    axes.legend(*shown, loc="upper left", bbox_to_anchor=(-0.02, -0.12), **style)


def heat(axes: Any, panel: dict[str, Any], answers: list[Series], server: Server) -> None:
    """Buckets from the lowest to the highest; each is counted without those below it."""
    ordered = sorted(answers, key=lambda s: float(s["metric"]["le"]))
    times = sorted({t for s in ordered for t, _ in s["values"]})
    rows = {s["metric"]["le"]: dict(s["values"]) for s in ordered}
    upto = np.array([[float(row.get(t, 0)) for t in times] for row in rows.values()])
    counts = np.diff(upto, axis=0, prepend=0).clip(min=0)
    axes.pcolormesh(np.array(times) - server.start, np.arange(len(rows)), counts, cmap="Blues_r", shading="nearest")
    axes.set_yticks(np.arange(len(rows))[::2], [f"≤ {le}" for le in list(rows)[::2]], fontsize=6)
    finish(axes, server, None)


def finish(axes: Any, server: Server, unit: str | None) -> None:
    axes.set_xlim(0, max(1.0, server.end - server.start))
    axes.xaxis.set_major_formatter(lambda at, _: f"{int(at) // 60}:{int(at) % 60:02d}")
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))
    axes.tick_params(length=2, labelsize=6)
    axes.grid(color="#2c3235", linewidth=0.5)
    if unit is not None:
        axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
        axes.yaxis.set_major_formatter(lambda value, _: formatted(value, unit.partition("suffix: ")[0]))


def save(figure: Figure, path: Path) -> None:
    """As a palette of 64 colours, which a picture of lines does not need more of."""
    whole = io.BytesIO()
    figure.savefig(whole, format="png", dpi=96)
    Image.open(whole).convert("RGB").quantize(64).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="a server that has scraped a run")
    parser.add_argument("--run", help="default: the one that it has seen last")
    parser.add_argument("--out", type=Path, required=True, help="a PNG file")
    arguments = parser.parse_args()
    server = server_of(arguments.prometheus.rstrip("/"), arguments.run)
    save(draw(json.loads(BOARD.read_text()), server), arguments.out)
    print(
        f"{arguments.out}: run {server.run}, {server.end - server.start:.0f} s of it, {arguments.out.stat().st_size // 1024} KB"
    )


if __name__ == "__main__":
    main()
