"""`make bench`: the pipeline beside what a user has without it, and each stage beside its floor; a table and JSON.

Every measurement leaves a file in --out, and one that is there is not made again: what takes long may be made in pieces, by
``--only SHAPE`` and ``--rounds``, and ``--most N`` ends after N measurements. ``--quick`` tests the benchmark itself.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks import end_to_end, stages
from tests.benchmarks.shapes import NAMES, ROOT, config_of
from tests.benchmarks.summary import Figure, summarise

KINDS = {"tiny": ("baseline", "pipeline"), "tail": ("baseline", "pipeline", "ahead")}
STEPS = {"tiny": 10, "tail": 3}  # of a round
Piece = tuple[Path, Callable[[], dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "runs/bench")
    parser.add_argument("--only", choices=NAMES, action="append")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--most", type=int, help="measurements to make now")
    parser.add_argument("--quick", action="store_true", help="one round of one step: the figures mean nothing")
    args = parser.parse_args()
    shapes = args.only or NAMES
    rounds, steps = (1, dict.fromkeys(NAMES, 1)) if args.quick else (args.rounds, STEPS)
    missing = [piece for shape in shapes for piece in _pieces(shape, rounds, steps[shape], args.out) if not piece[0].exists()]
    for file, measure in missing[: args.most]:
        Console().print(f"measuring {file.stem}")
        found = measure()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n")
    figures = {shape: _figures(shape, args.out) for shape in shapes}
    text = json.dumps({shape: [asdict(f) for f in found] for shape, found in figures.items()}, indent=1)
    (args.out / "bench.json").write_text(text + "\n")
    for shape, found in figures.items():
        Console(width=128).print(_table(shape, found))


def _pieces(shape: str, rounds: int, steps: int, out: Path) -> Iterator[Piece]:
    """What there is to measure of a shape, in the order in which it is measured."""
    for number in range(rounds):
        for kind in KINDS[shape]:
            yield (
                out / f"{shape}-{number}-{kind}.json",
                lambda kind=kind: end_to_end.measure(shape, kind, steps, out / "models" / shape, out / f"{shape}.jsonl"),
            )  # type: ignore[misc]
    for stage in stages.STAGES:
        yield out / f"{shape}-floor-{stage}.json", lambda stage=stage: _floor(shape, stage, out)  # type: ignore[misc]


def _floor(shape: str, stage: str, out: Path) -> dict[str, Any]:
    file, config = config_of(shape, out / "models" / shape, 1)
    return stages.measure(stage, file, out / f"{shape}.jsonl", int(config.pools.generator.env.get("OMP_NUM_THREADS", 1)))


def _figures(shape: str, out: Path) -> list[Figure]:
    rounds = [json.loads(p.read_text()) for kind in KINDS[shape] for p in sorted(out.glob(f"{shape}-*-{kind}.json"))]
    files = {stage: out / f"{shape}-floor-{stage}.json" for stage in stages.STAGES}
    floors = {stage: json.loads(file.read_text()) for stage, file in files.items() if file.exists()}
    return summarise(shape, rounds, floors)


def _table(shape: str, figures: list[Figure]) -> Table:
    table = Table("figure", "median", "from", "to", "of", "reach", title=f"shape {shape}")
    for f in figures:
        reach = (
            "" if f.reach is None else f"{'at most' if f.at_most else 'at least'} {f.reach:g}: {'yes' if f.reached else 'NO'}"
        )
        table.add_row(f.name, *(f"{value:,.3g}" for value in (f.median, f.low, f.high)), str(f.count), reach)
    return table


if __name__ == "__main__":
    main()
