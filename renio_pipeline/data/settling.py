"""Whether a resumed run may go on with the data that there is now, and how: ``data.changed``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from renio_pipeline.config import ConfigError, RunConfig
from renio_pipeline.config.mixture import parts
from renio_pipeline.data.changes import Changes, common_held_out, compare, told
from renio_pipeline.data.draw_order import continued
from renio_pipeline.data.mixing.mixed_settling import carried_on, compared, drawn_as
from renio_pipeline.run_dir.data_record import Entry, Origin, Stretch, read_record, read_stretch

_BEGAN = "nothing was trained yet, so the run starts with the data as it is"


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
    if was.parts or fresh.parts:
        return _settled_mixture(config, entry, was, fresh, position)
    changes = compare(was.training, fresh.training)
    lines = _lines(config, entry, was, fresh, changes)
    if not lines:
        longer = was if len(was.held_out) > len(fresh.held_out) else fresh  # where fewer are wanted now, all stay recorded
        return Settled(stretch=replace(_drawn_as(was, fresh), held_out=longer.held_out, asked=longer.asked))
    if not position:
        return Settled(stretch=fresh, notes=(*lines, _BEGAN))
    if config.data.changed == "refuse":
        raise _refused(lines)
    if not changes.rows:  # every position means the row that it meant
        return Settled(stretch=_drawn_as(was, fresh), notes=lines)
    new = continued(was, position, fresh.training.identities, config.seed, config.samples_per_prompt)
    assert new.first is not None
    how = f"data.changed=continue: pass {new.epoch + 1} is completed with the {len(new.first)} rows that it has not drawn yet"
    return Settled(stretch=_drawn_as(new, fresh), notes=(*lines, how))


def _settled_mixture(config: RunConfig, entry: Entry, was: Stretch, fresh: Stretch, position: int) -> Settled:
    """The same for ``data.sources``. Raises ConfigError as ``settle``, and where there was one source and are several."""
    if not (was.parts and fresh.parts):
        if not position:
            return Settled(stretch=fresh, notes=(_BEGAN,))
        kinds = ("several sources", "a single one")
        had, has = kinds if was.parts else kinds[::-1]
        raise ConfigError(
            f"data.sources: the run has read {had}, and there is {has} now, in which a position means nothing; restore "
            f"{'data.sources' if was.parts else 'data.path'}, or start another run from a checkpoint's hf/ folder"
        )
    sections = {part.name: part for part in parts(config.data)}
    changes = compared(entry, was, fresh, sections)
    if not position and changes.lines:
        return Settled(stretch=fresh, notes=(*changes.lines, _BEGAN))
    if changes.lines and config.data.changed == "refuse":
        raise _refused(changes.lines)
    if not changes.rows:
        return Settled(stretch=drawn_as(was, fresh), notes=changes.lines)
    new = carried_on(was, fresh, changes, position, config.seed, config.samples_per_prompt)
    how = f"data.changed=continue: from sample {position} on, the sources are mixed by the shares that they have now"
    return Settled(stretch=new, notes=(*changes.lines, how))


def _refused(lines: Sequence[str]) -> ConfigError:
    return ConfigError(
        "--resume: the data is not what the run has read:\n" + "".join(f"  {line}\n" for line in lines) + "restore it, or "
        "go on with data.changed=continue, which first draws the rows that the pass under way has not drawn"
    )


def _drawn_as(order: Stretch, rows: Stretch) -> Stretch:
    """The rows of one stretch in the order of another."""
    return replace(rows, start=order.start, epoch=order.epoch, first=order.first, seen=order.seen)


def _lines(config: RunConfig, entry: Entry, was: Stretch, now: Stretch, changes: Changes) -> tuple[str, ...]:
    """What changed, a line for each path. ``changes``: of the training rows."""
    held_out = common_held_out(was, now, made=config.data.held_out_path is None)
    found: list[str] = []
    for key, origin, path, (before, after), changed in (
        ("data.path", entry.training, config.data.path, (was.training, now.training), changes),
        ("data.held_out_path", entry.held_out, config.data.held_out_path, held_out, compare(*held_out)),
    ):
        if changed:
            found.append(f"{key if path else 'task'}: {told(changed, before, after, (origin, Origin.of(path, after)))}")
    return tuple(found)
