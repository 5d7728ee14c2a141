"""From turns to a table: of each kind its medians, with the least and the most of all steps, and its ratio to this project."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.peers.turns import KINDS
from tests.benchmarks.summary import Figure, Step, figure

NAMES = {
    "sequential": "sequential baseline",
    "trl": "TRL as it ships",
    "trl-patched": "TRL patched",
    "this": "**this project**",
    "this-all-cores": "the same, each stage on both cores",
    "this-colocated": "the same, colocated, each stage on both cores",
    "this-ahead": "the same, one step ahead",
}
FIGURES: dict[str, Callable[[Step], float]] = {
    "samples/s": lambda s: s["samples"] / s["seconds"],
    "tokens/s": lambda s: s["tokens"] / s["seconds"],
    "CPU-ms a token": lambda s: 1000 * s["cpu"] / s["tokens"],
    "s generating": lambda s: s["metrics"]["time/generate"] if "metrics" in s else s["generate"],
    "tokens a sample": lambda s: s["tokens"] / s["samples"],
}


@dataclass(frozen=True)
class Row:
    """What was found of one kind at one shape."""

    shape: str
    kind: str
    turns: int
    figures: list[Figure]  # FIGURES, "peak MB", "seconds to first step"
    ratio: Figure | None  # this project's samples/s, strictly on-policy, over this kind's; None: nothing to compare

    def figure(self, name: str) -> Figure:
        return next(f for f in self.figures if f.name == name)


def rows(shape: str, taken: Sequence[dict[str, Any]]) -> list[Row]:
    """In the order of KINDS, of those kinds that had a turn."""
    by_kind = {kind: [t for t in taken if t["kind"] == kind] for kind in KINDS}
    return [_row(shape, kind, own, by_kind["this"]) for kind, own in by_kind.items() if own]


def _row(shape: str, kind: str, own: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]]) -> Row:
    steps = [s for t in own for s in t["steps"]]
    figures = [figure(name, map(of, steps)) for name, of in FIGURES.items()]
    figures.append(figure("peak MB", (sum(t["memory"].values()) / 1e6 for t in own)))
    figures.append(figure("seconds to first step", (t["start"] for t in own)))
    rate = FIGURES["samples/s"]
    # Step over step of the same round: one machine is not as fast at all times.
    ratios = [rate(a) / rate(b) for our, their in zip(ours, own, strict=False) for a in our["steps"] for b in their["steps"]]
    return Row(shape, kind, len(own), figures, figure("ratio", ratios) if ratios and kind != "this" else None)


def markdown(found: Sequence[Row], versions: dict[str, str]) -> str:
    names = [*FIGURES, "peak MB", "seconds to first step"]
    lines = [f"| shape | | {' | '.join(names)} | this project's samples/s over it |", "| --- " * (len(names) + 3) + "|"]
    for row in found:
        cells = [_shown(row.figure(name)) for name in names]
        lines.append(f"| {row.shape} | {NAMES[row.kind]} | {' | '.join(cells)} | {_shown(row.ratio) if row.ratio else ''} |")
    return "\n".join([*lines, "", "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."])


def losses(found: Sequence[dict[str, Any]]) -> str:
    """The rows of ``peers.losses``. A difference is over this project's value, of a gradient by norms."""
    lines = [
        "| shape, β | loss here | TRL's | off | gradient off | the baseline's off | mean over samples: its gradient's cosine |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in found:
        offs = (f"{r[key]:.0e}" if r[key] else "0" for key in ("loss off", "gradient off", "baseline's gradient off"))
        first = (f"{r['shape']}, {r['beta']:g}", f"{r['this']:.7f}", f"{r['trl']:.7f}")
        last = f"{r['mean over samples']:.4f}: {r['cosine']:.2f}"
        lines.append(f"| {' | '.join((*first, *offs, last))} |")
    return "\n".join(lines)


def _shown(f: Figure) -> str:
    one = "{:,.0f}" if f.median >= 100 else "{:.3g}"
    spread = f" ({one.format(f.low)} to {one.format(f.high)})" if f.count > 1 and f.low != f.high else ""
    return one.format(f.median) + spread
