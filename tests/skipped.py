"""Which tests were skipped, and why, in one line: at the end of a run of pytest, and (``python -m tests.skipped``) of all runs.

A skip must not pass for a success. ``make test`` runs pytest several times, so that each run leaves its count in the folder
that RENIO_SKIPPED names, and the last line adds them up.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

FOLDER = "RENIO_SKIPPED"


def reasons(reports: Iterable[Any]) -> Counter[str]:
    """How many of pytest's reports of skipped tests give each reason."""
    return Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in reports)


def sentence(found: Counter[str]) -> str:
    if not found:
        return "no test was skipped"
    parts = "; ".join(f"{count}: {reason}" for reason, count in found.most_common())
    return f"{found.total()} tests were skipped. {parts}"


def record(found: Counter[str], names: Sequence[str]) -> None:
    """Write the counts of the run of pytest with the arguments ``names``, where somebody adds them up."""
    if folder := os.environ.get(FOLDER):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{re.sub(r'[^a-z]+', '-', ' '.join(names))}.json").write_text(json.dumps(found))


def main(folder: str) -> None:
    found: Counter[str] = Counter()
    for path in sorted(Path(folder).glob("*.json")):
        found.update(json.loads(path.read_text()))
    print(sentence(found))


if __name__ == "__main__":
    main(sys.argv[1])
