"""``python -m tests.benchmarks.gpu``: see the package."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from tests.benchmarks import gpu
from tests.benchmarks.gpu.bench import STARTED, TINY, Bench, Sizes
from tests.benchmarks.gpu.kernel import kernel
from tests.benchmarks.gpu.losses import compiled, exactness, loss, token_losses
from tests.benchmarks.gpu.profiles import profiles
from tests.benchmarks.gpu.teacher import teacher
from tests.benchmarks.gpu.trainer import trainer

SECTIONS = {
    "exactness": exactness,
    "kernel": kernel,
    "loss": loss,
    "profiles": profiles,
    "teacher": teacher,
    "trainer": trainer,
    "token losses": token_losses,
    "compiled": compiled,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=gpu.__doc__)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--seconds", type=float, default=220, help="no section begins later than this")
    parser.add_argument("--json", type=Path, default=Path(os.environ.get("OUT", "."), "gpu.json"))
    args = parser.parse_args()
    bench = Bench(TINY if args.tiny else Sizes(), args.device)
    for name in args.only:
        if time.perf_counter() - STARTED > args.seconds:
            bench.report.setdefault("errors", {})[name] = "not begun: no time was left"
            continue
        with bench.section(name):
            SECTIONS[name](bench)
        args.json.write_text(json.dumps(bench.report, indent=1) + "\n")
    args.json.write_text(json.dumps(bench.report, indent=1) + "\n")
    print(bench.report["device"], bench.report["torch"], *bench.rows, *bench.report.get("errors", {}), sep="\n")


if __name__ == "__main__":
    main()
