"""A line to a live run: commands in, answers out, one JSON object each. A process of its own, because one process can be in one
Ray cluster only, and tests are in theirs."""

from __future__ import annotations

import json
import sys
import time

from actors.cluster.address import use_token_of_this_machine
from actors.control import attach, live_runs
from renio_pipeline.config import ConfigError
from renio_pipeline.control.protocol import Refused, Unanswered


def main(run: str, address: str) -> None:
    use_token_of_this_machine()
    try:
        with attach.guest(address, time.monotonic() + 60):
            for line in sys.stdin:
                verb, arguments, seconds = json.loads(line)
                print(json.dumps(live_runs.ask(run, verb, arguments, seconds)), flush=True)
    except (ConfigError, Refused, Unanswered) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
