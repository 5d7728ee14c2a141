"""Whether a resumed run may go on with the data that there is now, and how: ``data.changed``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.data.changes import Changes, compare, told
from renio_pipeline.data.draw_order import continued
from renio_pipeline.run_dir.data_record import Entry, Origin, Prints, Stretch, read_record, read_stretch


@dataclass(frozen=True, kw_only=True)
class Settled:
    """How a run draws its rows, and what the user should know about it."""

    stretch: Stretch
    notes: tuple[str, ...] = ()


def settle(config: RunConfig, fresh: Stretch, position: int) -> Settled:
    """Compare the data with what the run's directory has recorded.

    Args:
        fresh: the rows that there are now, as a new run draws them.
        position: the sample that the run resumes at; 0 for one that starts.

    Raises:
        ConfigError: the data is not what it was, and ``data.changed`` is refuse.
    """
    record = read_record(config.directory)
    if record is None:
        unknown = "this run has no record of its data, so it is not known whether that changed; it is recorded from now on"
        return Settled(stretch=fresh, notes=(unknown,) if position else ())
    entry = record.at(position)
    was = read_stretch(config.directory, entry.from_sample)
    changes = compare(was.training, fresh.training)
    lines = _lines(config, entry, was, fresh, changes)
    if not lines:
        longer = was if len(was.held_out) > len(fresh.held_out) else fresh  # where fewer are wanted now, all stay recorded
        return Settled(stretch=replace(_drawn_as(was, fresh), held_out=longer.held_out, asked=longer.asked))
    if not position:
        began = "nothing was trained yet, so the run starts with the data as it is"
        return Settled(stretch=fresh, notes=(*lines, began))
    if config.data.changed == "refuse":
        raise ConfigError(
            "--resume: the data is not what the run has read:\n" + "".join(f"  {line}\n" for line in lines) + "restore it, or "
            "go on with data.changed=continue, which first draws the rows that the pass under way has not drawn"
        )
    if not changes.rows:  # every position means the row that it meant
        return Settled(stretch=_drawn_as(was, fresh), notes=lines)
    new = continued(was, position, fresh.training.identities, config.seed, config.samples_per_prompt)
    assert new.first is not None
    how = f"data.changed=continue: pass {new.epoch + 1} is completed with the {len(new.first)} rows that it has not drawn yet"
    return Settled(stretch=_drawn_as(new, fresh), notes=(*lines, how))


def _drawn_as(order: Stretch, rows: Stretch) -> Stretch:
    """The rows of one stretch in the order of another."""
    return replace(rows, start=order.start, epoch=order.epoch, first=order.first, seen=order.seen)


def _lines(config: RunConfig, entry: Entry, was: Stretch, now: Stretch, changes: Changes) -> tuple[str, ...]:
    """What changed, a line for each path. ``changes``: of the training rows."""
    held_out = _held_out(was, now, made=config.data.held_out_path is None)
    found: list[str] = []
    for key, origin, path, (before, after), changed in (
        ("data.path", entry.training, config.data.path, (was.training, now.training), changes),
        ("data.held_out_path", entry.held_out, config.data.held_out_path, held_out, compare(*held_out)),
    ):
        if changed:
            found.append(f"{key if path else 'task'}: {told(changed, before, after, (origin, Origin.of(path, after)))}")
    return tuple(found)


def _held_out(was: Stretch, now: Stretch, *, made: bool) -> tuple[Prints, Prints]:
    """The held-out rows to compare: if ``evaluate.problems`` is another number now, those that both ask for.

    None then of rows that the task ``made``, which may be others for another number.
    """
    common = 0 if made else min(len(was.held_out), len(now.held_out))
    count = None if was.asked == now.asked else common
    return Prints(*(part[:count] for part in was.held_out)), Prints(*(part[:count] for part in now.held_out))
