"""``make chaos``: the demo, two of each, under a seeded monkey. Fails unless every sample was trained on exactly once, and the
demo's gain is kept."""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from pathlib import Path

from renio_pipeline.ledger import history, prove_exactly_once, replayed
from tests.chaos.monkey import ROOT, TWO_OF_EACH, Monkey

STEPS = 600  # the run must not end before the last blow: about ten steps pass between two of them, and sometimes thirty


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blows", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-dir", type=Path, default=ROOT / "runs/chaos")
    args = parser.parse_args()
    shutil.rmtree(args.run_dir, ignore_errors=True)
    args.run_dir.with_suffix(".log").unlink(missing_ok=True)
    overrides = [
        *TWO_OF_EACH,
        f"steps={STEPS}",
        "batch_size=32",
        "evaluate.every=0",
        "checkpoint.every=5",
        "faults.heartbeat_seconds=15",
    ]
    with Monkey(args.run_dir, args.seed, overrides, command="demo") as monkey:
        monkey.rampage(args.blows // 2)
        monkey.kill_driver()
        monkey.rampage(args.blows - args.blows // 2)
        monkey.finish()
    prove_exactly_once(args.run_dir)
    dealt = Counter((blow.pool, blow.how) for blow in monkey.blows)
    print(f"{len(monkey.blows)} blows and one at the driver: {dict(dealt)}")
    print(
        f"steps {len(history(args.run_dir))}, of which {replayed(args.run_dir)} were trained again; every sample exactly once"
    )
    print("\n".join(monkey.log.splitlines()[-6:]))


if __name__ == "__main__":
    main()
