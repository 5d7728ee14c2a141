"""The results as tables on a terminal: a row for each model and data set, 95 % intervals in brackets."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from renio_pipeline.evaluation.bootstrap import Estimate
from renio_pipeline.evaluation.compare import Comparison
from renio_pipeline.evaluation.results import Results

LAST = ("response_tokens", "truncated", "markers_per_1k_tokens")  # the last columns, after the shares of correct responses


def results_table(results: Results) -> Table:
    """A row for each model and data set."""
    found = [metrics for of_model in results.metrics.values() for metrics in of_model.values()]
    names = list(dict.fromkeys(name for metrics in found for name in metrics if name not in LAST))
    table = _table("shares in %, with 95 % intervals over problems")
    for heading in ("model", "data set"):
        table.add_column(heading, no_wrap=True)
    for heading in ("problems", *names, "tokens", "truncated", "markers / 1k"):
        table.add_column(heading, justify="right", no_wrap=True)
    for model, of_model in results.metrics.items():
        for data_set, metrics in of_model.items():
            count = len(results.problems[model][data_set])
            tokens, markers = metrics["response_tokens"], metrics["markers_per_1k_tokens"]
            table.add_row(
                model,
                data_set,
                str(count),
                *(_share(metrics.get(name)) for name in names),
                _number(tokens),
                f"{100 * metrics['truncated'].value:.1f}",
                _number(markers),
            )
    return table


def comparison_table(found: Sequence[Comparison]) -> Table:
    a, b = found[0].a, found[0].b
    table = _table(f"{b} against {a}, by problem (difference in points)")
    for heading in ("data set", "problems", a, b, "difference", "p", "test", "unmatched"):
        table.add_column(heading, justify="left" if heading in ("data set", "test") else "right", no_wrap=True)
    for c in found:
        table.add_row(
            c.data_set,
            str(c.problems),
            f"{100 * c.mean_a:.1f}",
            f"{100 * c.mean_b:.1f}",
            f"{100 * c.difference.value:+.1f} [{100 * c.difference.low:+.1f}, {100 * c.difference.high:+.1f}]",
            f"{c.p_value:.2g}",
            c.test,
            f"{c.only_a} of {a}, {c.only_b} of {b}" if c.only_a or c.only_b else "none",
        )
    return table


def show(table: Table) -> None:
    """Print the table in full width, even into a file, a pipe or a narrow terminal, where rows are longer than a line."""
    console = Console(highlight=False)
    console.width = max(console.width, Console(width=10_000).measure(table).maximum)
    console.print(table)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _share(found: Estimate | None) -> str:
    return "" if found is None else f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _number(found: Estimate) -> str:
    return f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]"
