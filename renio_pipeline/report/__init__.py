"""``renio report``: one page about one or several runs, ``report.html``, which needs no network and no server.

    run directories ──> recorded ──> page data (JSON) ──> page.html with its style, its scripts and plotly.js, in one file
                            └──────> plots as PNG

Begin with ``write_report`` below, then ``recorded.py`` (reading a run directory) and ``page.py`` (the page). The page's data is
numbers and text; its scripts insert it as text, never as markup, so responses may contain anything. Live monitoring is in
``renio_pipeline.monitoring``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from renio_pipeline.config import ConfigError
from renio_pipeline.report.recorded import RecordedRun, read_runs
from renio_pipeline.report.samples import read_samples

MOST_TOKENS = 300_000  # in the reader, over all runs: about 4 MB of the page


def write_report(
    folders: Sequence[Path], out: Path | None = None, *, steps: Sequence[int] = (), png: bool = False
) -> list[Path]:
    """Write the page of one or several runs.

    Args:
        folders: run directories.
        out: the page's file; by default ``report.html`` in the run's directory. Required for several runs.
        steps: the steps whose samples the reader shows, however large; empty: the first, the last and evenly spaced steps
            between, as many as the page has room for.
        png: also write the plots as PNG, in a folder named after the page (with ``-plots`` appended if that is a run's
            directory).

    Returns:
        The files written, the page first.

    Raises:
        ConfigError: a folder is not a run directory, or has no such step.
    """
    page = _page_path(folders, out)
    runs = read_runs(folders)
    _check_steps(runs, steps)
    found = [read_samples(run, steps, MOST_TOKENS // len(runs)) for run in runs]

    from renio_pipeline.report.page import page_data, render
    from renio_pipeline.run_dir.checkpoint_files import write_durably

    write_durably(page, render(page_data(runs, found)))
    if not png:
        return [page]
    from renio_pipeline.report.plots import write_plots

    return [page, *write_plots(runs, found, _plots_path(page))]


def _page_path(folders: Sequence[Path], out: Path | None) -> Path:
    if out is None:
        if len(folders) > 1:
            raise ConfigError("--out: required with several runs, such as --out comparison.html")
        return folders[0] / "report.html"
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out: expected a file name that ends in .html, got {str(out)!r}")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out: the folder {str(out.parent)!r} does not exist")
    return out


def _plots_path(page: Path) -> Path:
    named_alike = page.with_suffix("")
    return named_alike.with_name(f"{page.stem}-plots") if (named_alike / "config.yaml").exists() else named_alike


def _check_steps(runs: Sequence[RecordedRun], steps: Sequence[int]) -> None:
    there = sorted({step for run in runs for step in run.sample_files})
    absent = [step for step in steps if step not in there]
    if absent:
        have = f"they have {len(there)} of them, {there[0]} to {there[-1]}" if there else "there are none"
        raise ConfigError(f"--steps: no samples of step {absent[0]} in {', '.join(str(run.path) for run in runs)}; {have}")
