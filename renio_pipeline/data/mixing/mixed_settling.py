"""Whether a resumed run may go on with the sources that there are now, and how: ``settling.py`` for ``data.sources``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from renio_pipeline.config.mixture import Part
from renio_pipeline.data.changes import Changes, common_held_out, compare, told
from renio_pipeline.data.draw_order import continued
from renio_pipeline.data.mixing.mixed_order import MixedOrder, as_before, source_seed
from renio_pipeline.run_dir.data_record import Entry, Origin, Stretch

_NOWHERE = "the source is not among data.sources any more"


@dataclass(frozen=True, kw_only=True)
class SourceChanges:
    """What is different about the sources."""

    lines: tuple[str, ...]  # for the user; empty: nothing is
    rows: bool  # whether a position means other rows: other rows, other sources, or other shares
    by_source: Mapping[str, Changes]  # of the training rows of each source that was there and is


def compared(entry: Entry, was: Stretch, now: Stretch, sections: Mapping[str, Part]) -> SourceChanges:
    """Compare what a run has read of its sources with what there is now.

    Args:
        entry: the record of ``was``.
        sections: where each source of ``now`` is in the configuration, by its name.
    """
    before, after = ({part.name: part for part in stretch.parts} for stretch in (was, now))
    origins = {source.name: source for source in entry.sources}
    by_source = {name: compare(before[name].training, after[name].training) for name in after if name in before}
    lines = [f"data.sources: {name}: {_NOWHERE}" for name in before if name not in after]
    moved = any(changes.rows for changes in by_source.values()) or before.keys() != after.keys()
    for name, part in after.items():
        key, section = sections[name].key, sections[name].section
        if name not in before:
            lines.append(f"{key}: {name}: a new source of {len(part.training)} rows")
            continue
        old = before[name]
        if not math.isclose(old.share, part.share, rel_tol=1e-9):  # other weights may have the same shares, but for rounding
            moved = True
            lines.append(f"{key}.weight: {name}: {part.share:.4g} of the prompts are of this source, and {old.share:.4g} were")
        held_out = common_held_out(old, part, made=section.held_out_path is None)
        for what, origin, path, prints, changes in (
            ("path", origins[name].training, section.path, (old.training, part.training), by_source[name]),
            ("held_out_path", origins[name].held_out, section.held_out_path, held_out, compare(*held_out)),
        ):
            if changes:
                lines.append(f"{key}.{what}: {told(changes, *prints, (origin, Origin.of(path, prints[1])))}")
    return SourceChanges(lines=tuple(lines), rows=moved, by_source=by_source)


def drawn_as(order: Stretch, rows: Stretch) -> Stretch:
    """The rows of one stretch in the order of another, of the same sources."""
    own = {part.name: part for part in order.parts}
    parts = tuple(
        replace(part, start=(was := own[part.name]).start, epoch=was.epoch, first=was.first, seen=was.seen, share=was.share)
        for part in rows.parts
    )
    return replace(rows, start=order.start, parts=parts, under_way=order.under_way)


def carried_on(
    was: Stretch, now: Stretch, changes: SourceChanges, position: int, seed: int, samples_per_prompt: int
) -> Stretch:
    """How a run goes on from sample ``position`` with the rows and shares of ``now``.

    A source whose rows are what they were goes on in its own order; one whose rows changed as a run with that source alone
    does; and a new one begins with its first pass.
    """
    order = MixedOrder(seed, samples_per_prompt, was)
    local = dict(zip((part.name for part in was.parts), order.positions(position), strict=True))
    before = {part.name: part for part in was.parts}
    parts: list[Stretch] = []
    for part in now.parts:
        if (found := changes.by_source.get(part.name)) is None:
            parts.append(part)
            continue
        arguments = source_seed(seed, part.name), samples_per_prompt
        if found.rows:
            new = continued(before[part.name], local[part.name], part.training.identities, *arguments)
        else:
            new = as_before(before[part.name], local[part.name], *arguments)
        parts.append(replace(part, start=local[part.name], epoch=new.epoch, first=new.first, seen=new.seen))
    partly = position % samples_per_prompt
    under_way = was.parts[order.drawn_as(position).source].name if partly else ""
    return replace(now, start=position, parts=tuple(parts), under_way=under_way)
