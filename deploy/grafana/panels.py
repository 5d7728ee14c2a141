"""What the dashboard's panels have in common: one line here is one decision of how figures are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BarGaugeValueMode,
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHT = 8
Query = tuple[str, str]  # expression and legend
Steps = Sequence[tuple[float, str]]  # from which value on which colour


def lines(
    title: str,
    unit: str,
    about: str,
    *queries: Query,
    width: int = 8,
    stacked: bool = False,
    maximum: float | None = None,
    red_above: float | None = None,
) -> timeseries.Panel:
    """Figures over time, from 0 on. ``red_above``: a line across, and red beyond."""
    panel = _with(timeseries.Panel(), title, unit, about, width)
    panel = panel.axis_soft_min(0).line_width(2).fill_opacity(60 if stacked else 0).span_nulls(True)
    panel = panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    panel = panel.legend(legend.show_legend(True).calcs([]))
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if maximum is not None:
        panel = panel.max(maximum)
    if red_above is not None:
        panel = panel.thresholds(_thresholds([(red_above, "red")]))
        panel = panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.LINE))
    return _asking(panel, queries)


def number(title: str, unit: str, about: str, query: Query, colours: Steps = (), *, names: bool = False) -> stat.Panel:
    """The latest figure, large. ``names``: with its legend."""
    panel = _with(stat.Panel(), title, unit, about, width=4).height(5)
    text = BigValueTextMode.VALUE_AND_NAME if names else BigValueTextMode.VALUE
    panel = panel.graph_mode(BigValueGraphMode.NONE).text_mode(text)
    panel = panel.color_mode(BigValueColorMode.BACKGROUND if colours else BigValueColorMode.NONE)
    panel = panel.reduce_options(_latest()).thresholds(_thresholds(colours))
    return _asking(panel, [query], instant=True)


def bars(title: str, unit: str, about: str, query: Query, colours: Steps) -> bargauge.Panel:
    """The latest figure of each series, as long as it is large, of at most 1."""
    panel = _with(bargauge.Panel(), title, unit, about, width=8).height(5).min(0).max(1)
    panel = panel.orientation(VizOrientation.HORIZONTAL).display_mode(BarGaugeDisplayMode.BASIC)
    panel = panel.value_mode(BarGaugeValueMode.COLOR).reduce_options(_latest()).thresholds(_thresholds(colours))
    return _asking(panel, [query], instant=True)


def distribution(title: str, unit: str, about: str, histogram: str, selector: str) -> heatmap.Panel:
    """How a histogram's values lie, over time."""
    panel = _with(heatmap.Panel(), title, "short", about, width=12).calculate(False)  # the unit of a cell: how many
    panel = panel.color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(32))
    panel = panel.y_axis(heatmap.YAxisConfig().unit(unit)).show_legend()
    expr = f"sum by (le) (increase({histogram}_bucket{{{selector}}}[$__rate_interval]))"
    return _asking(panel, [(expr, "{{le}}")], PromQueryFormat.HEATMAP)


def _with(panel: Any, title: str, unit: str, about: str, width: int) -> Any:
    return panel.title(title).unit(unit).description(about).datasource(SOURCE).span(width).height(HEIGHT)


def _asking(
    panel: Any, queries: Sequence[Query], shape: PromQueryFormat = PromQueryFormat.TIME_SERIES, *, instant: bool = False
) -> Any:
    for i, (expr, legend) in enumerate(queries):
        query = prometheus.Dataquery().datasource(SOURCE).ref_id("ABCDEFGH"[i]).expr(expr).legend_format(legend).format(shape)
        panel = panel.with_target(query.instant() if instant else query.range())
    return panel


def _latest() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().values(False).calcs(["lastNotNull"]).fields("")


def _thresholds(colours: Steps) -> dashboard.ThresholdsConfig:
    first = Threshold(value=None, color="green" if colours else "text")
    steps = [first, *(Threshold(value=value, color=colour) for value, colour in colours)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
