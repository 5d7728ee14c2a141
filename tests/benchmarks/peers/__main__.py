"""`make peers`: TRL, the sequential baseline and this project on the same work, in turns; JSON and a Markdown table.

Every turn leaves a file in --out, and one that is there is not taken again, so an interrupted measurement goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks.peers import table, turns
from tests.benchmarks.shapes import ROOT

# Of a turn: steps that are left out, and steps that count. Where one takes a minute, the first counts too.
STEPS: dict[str, dict[str, tuple[int, int]]] = {
    "tiny": dict.fromkeys(("sequential", "trl", "trl-patched", "this", "this-all-cores", "this-colocated"), (2, 10)),
    "tail": {"sequential": (0, 1), "trl": (0, 1), "trl-patched": (1, 2), "this": (1, 2), "this-ahead": (1, 2)},
    "135m": {"sequential": (0, 1), "trl": (0, 1), "trl-patched": (0, 1), "this": (1, 1)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "runs/bench-peers")
    parser.add_argument("--only", choices=STEPS, action="append", help="shapes")
    parser.add_argument("--kind", choices=tuple(turns.KINDS), action="append")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--most", type=int, help="turns to take now")
    parser.add_argument("--no-losses", action="store_true", help="leave out the comparison of losses on one batch")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    asked = _turns(args.only or list(STEPS), args.kind or list(turns.KINDS), args.rounds)
    missing = [turn for turn in asked if not _file(args.out, *turn).exists()]
    for shape, number, kind in missing[: args.most]:
        print(f"measuring {shape}, round {number + 1}, {kind}", flush=True)
        found = turns.measure(shape, kind, *STEPS[shape][kind], args.out / "models" / shape)
        _file(args.out, shape, number, kind).write_text(json.dumps(found, indent=1) + "\n")
    if not args.no_losses and not (args.out / "losses.json").exists():
        command = [str(turns.PYTHON), "-m", "tests.benchmarks.peers.losses", "--out", str(args.out)]
        subprocess.run(command, cwd=ROOT, check=True, env=os.environ | turns.OFFLINE | {"PYTHONPATH": str(ROOT)})
    _report(args.out)


def _turns(shapes: Sequence[str], kinds: Sequence[str], rounds: int) -> Iterator[tuple[str, int, str]]:
    """In the order in which they are taken: a round has a turn of each kind, and every other round goes backwards."""
    for shape in shapes:
        for number in range(rounds):
            own = [kind for kind in kinds if kind in STEPS[shape]]
            for kind in own if number % 2 == 0 else reversed(own):
                yield shape, number, kind


def _file(out: Path, shape: str, number: int, kind: str) -> Path:
    return out / f"{shape}-{number}-{kind}.json"


def _report(out: Path) -> None:
    taken = [json.loads(file.read_text()) for file in sorted(out.glob("*-[0-9]*-*.json"))]
    rows = [row for shape in STEPS for row in table.rows(shape, [t for t in taken if t["shape"] == shape])]
    (out / "peers.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    text = table.markdown(rows, _versions(taken))
    losses = out / "losses.json"
    if losses.exists():
        text += "\n\n" + table.losses(json.loads(losses.read_text()))
    (out / "peers.md").write_text(text + "\n")
    print(text)


def _versions(taken: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Of each thing all that the turns had: more than one, if something was changed between them."""
    names = dict.fromkeys(name for t in taken for name in t["versions"])
    return {name: ", ".join(dict.fromkeys(t["versions"].get(name, "?") for t in taken)) for name in names}


if __name__ == "__main__":
    main()
