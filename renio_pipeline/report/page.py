"""The page: its data, and the single file that contains everything."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib import resources
from string import Template
from typing import Any

import numpy as np

from renio_pipeline.probe.table import advice_text, sections
from renio_pipeline.report.choice import spread
from renio_pipeline.report.curves import AUROC, EVALUATIONS, IDLE, Curve, curves_of
from renio_pipeline.report.facts import facts, notes
from renio_pipeline.report.recorded import RecordedRun, sources_of
from renio_pipeline.report.samples import VERDICTS, Samples, packed
from renio_pipeline.report.timeline import SPENT, STAGES, bars, spent

MOST_STEPS = 5_000  # points of a curve
SCRIPTS = ("data.js", "plots.js", "time.js", "weights.js", "tokens.js", "reader.js", "probe.js", "page.js")


def page_data(runs: Sequence[RecordedRun], samples: Sequence[Samples]) -> dict[str, Any]:
    """Everything that the page shows, as JSON-compatible data."""
    curves = curves_of(sources_of(runs), (line for run in runs for line in run.metrics))
    return {
        "curves": [asdict(curve) for curve in curves],
        "idle": asdict(IDLE),
        "auroc": asdict(AUROC),
        "evaluated": EVALUATIONS,
        "stages": STAGES,
        "spent": SPENT,
        "verdicts": VERDICTS,
        "runs": [_run(run, found, curves) for run, found in zip(runs, samples, strict=True)],
    }


def _run(run: RecordedRun, samples: Samples, curves: Sequence[Curve]) -> dict[str, Any]:
    lines = spread(run.metrics, MOST_STEPS)
    weights = samples.weights
    evaluations = [line for line in run.evaluations if "accuracy" in line]
    return {
        "label": run.label,
        "facts": facts(run, samples),
        "notes": [*samples.notes, *notes(run, len(lines))],
        "threshold": run.config.pivotal.threshold,
        "clip": run.config.pivotal.clip,
        "steps": [line["step"] for line in lines],
        "metrics": {name: [_short(line.get(name)) for line in lines] for name in _metric_names(curves)},
        "evaluations": [{key: _short(value) for key, value in line.items() if _is_number(value)} for line in evaluations],
        "timeline": [{s: [[_short(t) for t in ends] for ends in found] for s, found in bars(line).items()} for line in lines],
        "spent": {name: [_short(spent(line)[name]) for line in lines] for name in SPENT},
        "weights": {
            "steps": [w.step for w in weights],
            "counts": [len(w.weight) for w in weights],
            "weight": packed(_joined(w.weight for w in weights), "<f4"),
            "raw": packed(_joined(w.raw for w in weights), "<f4"),
            "verdict": packed([VERDICTS.index(v) for w in weights for v in w.verdict], "u1"),
        },
        "reader": samples.reader,
        "probe": _probe(run),
    }


def _probe(run: RecordedRun) -> dict[str, Any] | None:
    if (probe := run.probe) is None:
        return None
    label = f"Made {probe.made}, of student {probe.student}: what the teacher would teach, measured without training."
    return {"label": label, "tables": sections(probe), "advice": advice_text(probe), "notes": probe.notes}


def _metric_names(curves: Sequence[Curve]) -> list[str]:
    return [name for curve in (*curves, AUROC, IDLE) for name in curve.metrics] + ["time/step"]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: float | None) -> float | None:
    """Rounded to six digits; None if the value was not measured or is not finite."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


def _joined(arrays: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.float32), *arrays])


def render(data: dict[str, Any]) -> str:
    """The page as one file. Its content security policy lets it run only its own scripts and load nothing."""
    from plotly.offline import get_plotlyjs

    scripts = [get_plotlyjs(), "\n".join(_asset(name) for name in SCRIPTS)]
    for script in scripts:
        assert "</script" not in script.lower(), "a script would end in its middle"
    names = ", ".join(run["label"] for run in data["runs"])
    return Template(_asset("page.html")).substitute(
        title=html.escape(f"Report: {names}"),
        policy=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        style=_asset("page.css"),
        data=json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        plotly=scripts[0],
        scripts=scripts[1],
    )


def _asset(name: str) -> str:
    return (resources.files("renio_pipeline.report") / "assets" / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
