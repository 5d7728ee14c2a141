"""Writes the dashboard: ``python -m deploy.grafana.build`` in the repository's root."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, VariableOption, VariableRefresh, VariableSort

from deploy.grafana.panels import SOURCE
from deploy.grafana.rows import ROWS

PATH = Path(__file__).parent / "dashboards" / "renio.json"


def build() -> dashboard.Dashboard:
    board = (
        dashboard.Dashboard("ReNIO pipeline")
        .uid("renio")
        .tags(["renio"])
        .readonly()
        .description("One run: its pools, its steps, what it learns. What to do about a red panel is in its description.")
        .time("now-30m", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_choice("run", "label_values(renio_run_info, run)"))
        .with_variable(
            _choice("pool", 'label_values(renio_pool_target{run="$run"}, pool)')
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
        )
        .annotation(
            dashboard.AnnotationQuery()
            .name("Alerts")
            .datasource(SOURCE)
            .enable(True)
            .icon_color("red")
            .expr('ALERTS{alertstate="firing", run="$run"}')
        )
    )
    numbers = itertools.count(1)
    for title, panels in ROWS.items():
        board = board.with_row(dashboard.Row(title).id(next(numbers)))
        for panel in panels():
            board = board.with_panel(panel.id(next(numbers)))
    return board


def text() -> str:
    return json.dumps(build().build(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _choice(name: str, query: str) -> dashboard.QueryVariable:
    """Of what Prometheus knows in the time shown; names with a date in them, the newest first."""
    variable = dashboard.QueryVariable(name).label(name.capitalize()).datasource(SOURCE).query(query)
    return variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_DESC)


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(text(), encoding="utf-8")
