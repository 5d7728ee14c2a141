"""Runs a study: computes the results that are missing and keeps the rest."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from renio_pipeline.in_process import check
from renio_pipeline.run_dir.fence import NO_FENCE, Fence
from renio_pipeline.study.models import ready
from renio_pipeline.study.plan import Cell, Experiment, cells, models_of
from renio_pipeline.study.results import Record, Results

if TYPE_CHECKING:
    from renio_pipeline.study.runner import Runner

Note = Callable[[str], None]


def run_study(
    experiments: dict[Path, Experiment], out: Path, *, seeds: int | None, jobs: int, note: Note, fence: Fence = NO_FENCE
) -> None:
    """Compute every run that has no record in ``out``, with one process per job, each on one core.

    Raises:
        ConfigError: a run needs something that one process cannot do. Raised before any run starts.
        LeaseLostError: another process writes ``out`` now.
    """
    results, models = Results(out, fence), out / "models"
    missing = list(_missing(cells(experiments, seeds), results))
    for cell in missing:
        check(cell.config)
    out.mkdir(parents=True, exist_ok=True)
    note(f"{len(missing)} runs to do, {len(results.records)} in {out}")
    if jobs > 1:  # otherwise each process would make them
        for name in sorted({name for cell in missing for name in models_of(cell.config)}):
            ready(name, models, note)
    started = time.monotonic()
    for done, (cell, record) in enumerate(_computed(missing, models, jobs, note), start=1):
        results.add(cell, record)
        levels = ", ".join(cell.factors.values())
        note(
            f"{done}/{len(missing)} seed {cell.seed} {cell.experiment}: {levels}, {cell.arm}: {_told(record)}; "
            f"{time.monotonic() - started:.0f} s"
        )


def _missing(wanted: Iterator[Cell], results: Results) -> Iterator[Cell]:
    """Of the cells that share a result, the first, if there is no result yet."""
    planned = set(results.records)
    for cell in wanted:
        if (cell.key, cell.seed) not in planned:
            planned.add((cell.key, cell.seed))
            yield cell


def _computed(missing: Sequence[Cell], models: Path, jobs: int, note: Note) -> Iterator[tuple[Cell, Record]]:
    from renio_pipeline.study.runner import Runner

    if jobs == 1:
        _one_thread()
        runner = Runner(models=models, note=note)
        yield from ((cell, asyncio.run(runner.run(cell))) for cell in missing)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_one_thread) as pool:
        waiting = iter(missing)
        under_way: dict[Future[Record], Cell] = {}
        while True:
            under_way |= {pool.submit(_one, c, models): c for _, c in zip(range(jobs - len(under_way)), waiting, strict=False)}
            if not under_way:
                return
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                yield under_way.pop(future), future.result()


def _one(cell: Cell, models: Path) -> Record:
    """Run one cell in a process of the pool, whose runner lives as long as the process."""
    return asyncio.run(_own_runner(models).run(cell))


@cache
def _own_runner(models: Path) -> Runner:
    from renio_pipeline.study.runner import Runner

    return Runner(models=models)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _told(record: Record) -> str:
    seconds = f"{record['core_seconds']:.0f} s of a core"
    if "after" in record:
        return f"{record['before']['correct']:.1%} to {record['after']['correct']:.1%}, {seconds}"
    if "auroc" in record:
        return f"AUROC {record['auroc']['whole']['weight']:.3f}, {seconds}"
    return f"{record['alone']['correct']:.1%} correct, {seconds}"
