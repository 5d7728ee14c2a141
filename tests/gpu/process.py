"""One check in this process: `python -m tests.gpu.process NAME --record FILE --device cuda [--small]`.

FILE gets a line of JSON for each figure as soon as it is measured, and one for the outcome: what a check that is killed has
measured stays.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from tests.gpu.check import Check, NotRun, Outcome
from tests.gpu.checks import by_name
from tests.gpu.settings import Settings, make


def record(check: Check, settings: Settings, file: TextIO) -> Outcome:
    """Run a check, and write what it finds."""

    def write(line: dict[str, Any]) -> None:
        file.write(json.dumps(line) + "\n")
        file.flush()

    outcome: Outcome = "passed"
    why = ""
    broken = []
    try:
        for figure in check.run(settings):
            write({"figure": asdict(figure)})
            print(figure, flush=True)
            broken += [str(figure)] if figure.broken else []
        assert not broken, "out of bounds: " + "; ".join(broken)
    except NotRun as reason:
        outcome, why = "not run", str(reason)
    except AssertionError as error:
        traceback.print_exc()
        outcome, why = "failed", str(error) or "an assertion without a text: see the log"
    except Exception as error:
        traceback.print_exc()
        outcome, why = "failed", f"{type(error).__name__}: {error}"
    write({"outcome": outcome, "why": why})
    return outcome


def end_with(parent: int) -> None:
    """Kill this process's session once its parent is not `parent` any more: it must not keep the GPU from the next check."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--parent", type=int, help="end when this process, which started this one, has ended")
    args = parser.parse_args()
    if args.parent is not None:
        end_with(args.parent)
    with args.record.open("a") as file:
        record(by_name(args.name), make(device=args.device, small=args.small), file)


if __name__ == "__main__":
    main()
