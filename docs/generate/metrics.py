"""The table of every metric, as Markdown, from the registry.

python docs/generate/metrics.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from renio_pipeline.metrics.registry import METRICS, SOURCE_METRICS, of_source
from renio_pipeline.monitoring.names import prometheus_name


def table() -> str:
    """Name in ``metrics.jsonl``, name in Prometheus, unit and meaning."""
    rows = [f"| `{name}` | `{prometheus_name(name)}` | {unit or 'none'} | {text} |" for name, (unit, text) in METRICS.items()]
    for quantity, (unit, text) in SOURCE_METRICS.items():
        name = prometheus_name(of_source("NAME", quantity))
        rows.append(f"| `source/NAME/{quantity}` | `{name}`, label `source` | {unit or 'none'} | {text} |")
    return "\n".join(["| in `metrics.jsonl` | in Prometheus | unit | meaning |", "| --- | --- | --- | --- |", *rows])


if __name__ == "__main__":
    print(table())
