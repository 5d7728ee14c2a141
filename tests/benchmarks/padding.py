"""Of the tokens that the trainer computes, how many are samples': rows with samples end to end beside a row for each.

For models whose attention needs a mask: where it needs none, a micro-batch is one row, and all of its tokens are samples'.

Lengths have long tails, cut at the longest response. Every figure is a median over seeds, with the least and most.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from renio_pipeline.models.batching import area, pack, plan, unpacked

PROMPT_TOKENS = 60
LIMIT = 0.9


@dataclass(frozen=True)
class Length:
    tokens: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--longest", type=int, nargs="+", default=[512, 2048, 8192], help="tokens of a response")
    parser.add_argument("--samples", type=int, nargs="+", default=[64, 96], help="of a step")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--micro-batch-tokens", type=int, default=16384)
    parser.add_argument("--seeds", type=int, default=25)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [
        measure(kind, longest, n, ranks, args.micro_batch_tokens, args.seeds)
        for kind in ("log-normal", "exponential")
        for longest in args.longest
        for n in args.samples
        for ranks in args.ranks
    ]
    show(rows)
    if args.json:
        args.json.write_text(json.dumps({"limit": LIMIT, "rows": rows}, indent=1) + "\n")


def drawn(kind: str, longest: int, n: int, seed: int) -> list[Length]:
    """Samples with responses of a mean near a fifth of the longest."""
    rng = np.random.default_rng(seed)
    mean = longest / 5
    tokens = rng.lognormal(np.log(mean) - 0.5, 1.0, n) if kind == "log-normal" else rng.exponential(mean, n)
    return [Length(PROMPT_TOKENS + max(1, min(longest, int(t)))) for t in tokens]


def measure(kind: str, longest: int, n: int, ranks: int, budget: int, seeds: int) -> dict[str, Any]:
    shares: dict[str, list[float]] = {"a row each": [], "packed": []}
    seconds = []
    for seed in range(seeds):
        samples = drawn(kind, longest, n, seed)
        useful = sum(s.tokens for s in samples)
        started = time.process_time()
        shares["packed"].append(useful / computed(samples, ranks, budget, packing=True))
        seconds.append(time.process_time() - started)
        shares["a row each"].append(useful / computed(samples, ranks, budget, packing=False))
    spread = {name: [statistics.median(x), min(x), max(x)] for name, x in shares.items()}
    row = {"lengths": kind, "longest": longest, "samples": n, "ranks": ranks}
    return row | spread | {"planning_ms": 1e3 * statistics.median(seconds)}


def computed(samples: list[Length], ranks: int, budget: int, *, packing: bool) -> int:
    """Tokens of all ranks, padding included."""
    lay = pack if packing else unpacked
    return sum(area(lay(batch)) for share in plan(samples, ranks, budget, packing=packing) for batch in share)


def show(rows: list[dict[str, Any]]) -> None:
    table = Table("lengths", "longest", "samples", "ranks", "a row each", "packed", "planning, CPU ms", "limit")
    for row in rows:
        shares = ["{:.3f} ({:.3f} to {:.3f})".format(*row[name]) for name in ("a row each", "packed")]
        where = (str(row[key]) for key in ("lengths", "longest", "samples", "ranks"))
        table.add_row(*where, *shares, f"{row['planning_ms']:.1f}", f"{LIMIT:g}")
    Console(width=128).print(table)


if __name__ == "__main__":
    main()
