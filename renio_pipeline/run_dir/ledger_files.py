"""The files of ``ledger/``: each rank appends to ``rank_N.jsonl``, and begins it anew when it is full.

rank_0.jsonl                     rank 0 writes to it
rank_0.2.000431.jsonl            full, as it was when rank 0 began step 431 in restart epoch 2; nobody writes to it any more
rank_0.0.000215.jsonl.zst        the same, packed (``archive.py``)
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from renio_pipeline.run_dir.fence import NO_FENCE, Fence
from renio_pipeline.run_dir.json_lines import plain_paths

FULL_BYTES = 1 << 20
_NAME = re.compile(r"rank_(\d+)(\.\d+\.\d+)?\.jsonl")


def record_trained(
    folder: Path,
    rank: int,
    *,
    step: int,
    incarnation: int,
    sample_ids: Sequence[int],
    off_policy: Sequence[int] = (),
    fence: Fence = NO_FENCE,
) -> None:
    """Append what a rank trained on to its ledger. Raises OSError, LeaseLostError.

    ``off_policy``: the ids among them of responses that the student did not write.
    """
    path = folder / f"rank_{rank}.jsonl"
    if path.exists() and path.stat().st_size >= FULL_BYTES:
        fence.check()
        path.rename(folder / f"rank_{rank}.{incarnation}.{step:06d}.jsonl")  # a name that no other epoch has
    line = {"step": step, "incarnation": incarnation, "sample_ids": sample_ids}
    if off_policy:
        line["off_policy"] = off_policy
    fence.append(path, json.dumps(line).encode() + b"\n")


def ledgers(folder: Path) -> list[tuple[int, Path]]:
    """Every ledger with its rank, by plain names, packed or not."""
    named = ((_NAME.fullmatch(path.name), path) for path in plain_paths(folder, "rank_*.jsonl"))
    return [(int(found[1]), path) for found, path in named if found]


def open_ledgers(folder: Path) -> list[Path]:
    """Those that ranks write to."""
    return [path for path in folder.glob("rank_*.jsonl") if (found := _NAME.fullmatch(path.name)) and not found[2]]


def full_ledgers(folder: Path) -> list[Path]:
    """Those that nobody writes to any more, and that are not packed yet."""
    return [path for path in folder.glob("rank_*.jsonl") if (found := _NAME.fullmatch(path.name)) and found[2]]
