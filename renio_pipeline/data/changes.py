"""What changed between the data that a run recorded and the data that there is now, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renio_pipeline.run_dir.data_record import Origin, Prints, Stretch

SHOWN = 3  # places of each kind of change


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Between two data sets: indices of rows, [n] int64 each; ``removed`` of the earlier one, the others of the later one."""

    added: np.ndarray
    removed: np.ndarray
    edited: np.ndarray  # another content under the same id
    asked: np.ndarray  # the same content, but another prompt
    moved: bool  # the rows that both have are in another order

    @property
    def rows(self) -> bool:
        """Whether there are other rows, or another order, so that a position means other rows."""
        return bool(len(self.added) or len(self.removed) or self.moved)

    def __bool__(self) -> bool:
        return bool(self.rows or len(self.edited) or len(self.asked))


def compare(was: Prints, now: Prints) -> Changes:
    """What is different in ``now``."""
    _, before, after = np.intersect1d(was.identities, now.identities, assume_unique=True, return_indices=True)
    order = np.argsort(after)
    before, after = before[order], after[order]
    edited = was.contents[before] != now.contents[after]
    asked = (was.prompts[before] != now.prompts[after]) & ~edited
    return Changes(
        added=np.setdiff1d(np.arange(len(now)), after),
        removed=np.setdiff1d(np.arange(len(was)), before),
        edited=after[edited],
        asked=after[asked],
        moved=bool((np.diff(before) < 0).any()),
    )


def common_held_out(was: Stretch, now: Stretch, *, made: bool) -> tuple[Prints, Prints]:
    """The held-out rows to compare: if ``evaluate.problems`` is another number now, those that both ask for.

    None then of rows that the task ``made``, which may be others for another number.
    """
    common = 0 if made else min(len(was.held_out), len(now.held_out))
    count = None if was.asked == now.asked else common
    return Prints(*(part[:count] for part in was.held_out)), Prints(*(part[:count] for part in now.held_out))


def told(changes: Changes, was: Prints, now: Prints, origins: tuple[Origin, Origin]) -> str:
    """``rows.jsonl: 2 rows added (lines 7, 9); it had 100 rows in 5120 bytes, and has 102 in 5301``.

    Args:
        origins: of ``was`` and of ``now``.
    """
    before, after = origins
    named = after.path is not None
    parts = [
        _part(changes.added, now, "added", named),
        _part(changes.removed, was, "removed", named, " before"),
        _part(changes.edited, now, "edited", named),
        "rows in another order" if changes.moved else "",
        _part(changes.asked, now, "as before, but asked in other words", named),
    ]
    path = after.path or "the rows that the task makes"
    moved = "" if before.path == after.path or not named else f", which takes the place of {before.path}"
    sizes = f"it had {_amount(before)}, and has {_amount(after)}"
    hint = ""
    if len(changes.asked):
        hint = "; the student's chat template or tokenizer, or the task, is not what it was"
    elif before.bytes is not None and before.bytes == after.bytes and not len(changes.edited) and not changes.moved:
        hint = "; if the file is the same, other rows of it can be used now"
    return f"{path}{moved}: {', '.join(filter(None, parts))}; {sizes}{hint}"


def _part(indices: np.ndarray, prints: Prints, what: str, named: bool, before: str = "") -> str:
    if not len(indices):
        return ""
    places = f" ({_lines(prints.lines[indices])}{before})" if named else ""
    return f"{len(indices)} {'row' if len(indices) == 1 else 'rows'} {what}{places}"


def _lines(lines: Sequence[int]) -> str:
    shown = ", ".join(str(line) for line in lines[:SHOWN])
    return f"line{'s' if len(lines) > 1 else ''} {shown}{', ...' if len(lines) > SHOWN else ''}"


def _amount(origin: Origin) -> str:
    return f"{origin.rows} rows" + (f" in {origin.bytes} bytes" if origin.bytes is not None else "")
