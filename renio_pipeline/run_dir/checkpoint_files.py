"""A run's checkpoints on disk: written under a temporary name, then renamed; found among other files; pruned.

    checkpoints/.step_000010.0.partial/   being written in restart epoch 0
    checkpoints/step_000010/              complete: run.json, which is written last, lists every file and its size
    checkpoints/latest                    the name of the newest one; moves last

This module does not know what the trainer writes into a folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from renio_pipeline.run_dir.fence import NO_FENCE, Fence, own_file, write_all
from renio_pipeline.types import FIRST_VERSION, Version

_NAME = re.compile(r"step_(\d{6,})")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What the driver needs to resume after ``step``; the trainer's ranks write the rest into the same folder."""

    step: int = 0
    samples_drawn: int = 0  # the prompt cursor's position
    version: Version = FIRST_VERSION
    weighting: Any = None  # the weighting's own state, as JSON holds it
    world_size: int = 0  # trainer ranks that wrote it
    zero_stage: int = 0


THE_START = RunState()


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """Where a run resumes: its start, or a checkpoint, in a restart epoch in which no version was published yet."""

    state: RunState = THE_START
    folder: Path | None = None  # the checkpoint; None: the start


def begin(folder: Path, state: RunState, fence: Fence = NO_FENCE) -> Path:
    """An empty folder to write a checkpoint into; it does not count until ``commit``. Raises OSError, LeaseLostError."""
    fence.check()
    partial = folder / f".step_{state.step:06d}.{state.version.incarnation}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial.absolute()


def commit(partial: Path, state: RunState, fence: Fence = NO_FENCE) -> Path:
    """Make a written folder a checkpoint, by one rename. Raises OSError, LeaseLostError."""
    final = partial.parent / f"step_{state.step:06d}"
    files = {str(path.relative_to(partial)): path.stat().st_size for path in sorted(partial.rglob("*")) if path.is_file()}
    write_durably(partial / "run.json", json.dumps(asdict(state) | {"files": files}, indent=1))
    fence.check()
    if read(final) is None:  # otherwise it is that of a driver that has taken over since the check, and the rename fails
        shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    sync_folder(final.parent)
    return final


def newest(folder: Path) -> tuple[Path, RunState] | None:
    """The complete checkpoint of the highest step, whether or not ``latest`` names it already."""
    return next(((path, state) for path in reversed(_numbered(folder)) if (state := read(path))), None)


def read(path: Path) -> RunState | None:
    """A checkpoint's state, or None unless it is complete: every file that was written is there, in its size."""
    try:
        values = json.loads((path / "run.json").read_text(encoding="utf-8"))
        files = values.pop("files")
        whole = all((path / name).stat().st_size == size for name, size in files.items())
        if "running_mean" in values:  # as versions before weightings had a state of their own wrote it
            mean = values.pop("running_mean")
            values["weighting"] = None if mean is None else {"running_mean": mean}
        state = RunState(**values | {"version": Version(*values["version"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return state if whole and path.name == f"step_{state.step:06d}" else None


def prune(folder: Path, keep: int, fence: Fence = NO_FENCE) -> list[Path]:
    """Name the newest complete checkpoint in ``latest``, then delete all but the newest ``keep``. Returns what went.

    Raises OSError, LeaseLostError: then ``latest`` names a checkpoint that is still there.
    """
    fence.check()
    complete = [path for path in _numbered(folder) if read(path)]
    if complete:
        write_durably(folder / "latest", complete[-1].name + "\n", fence)
    old = complete[:-keep]
    for path in old:
        discard(path)
    return old


def cut_back(folder: Path, step: int) -> None:
    """Delete checkpoints after ``step``, which a resumed run writes again, and unfinished files. Other files stay."""
    _aside(folder / "latest").unlink(missing_ok=True)  # a driver that was stopped within ``write_durably`` cannot end it now
    for path in [*folder.glob(".step_*.partial"), *folder.glob(".step_*.universal")]:
        shutil.rmtree(path, ignore_errors=True)
    for path in _numbered(folder):
        if step < int(path.name.removeprefix("step_")):
            discard(path)


def discard(path: Path) -> None:
    """Delete a checkpoint. It stops counting before its first file goes."""
    dying = path.with_name(f".{path.name}.partial")
    shutil.rmtree(dying, ignore_errors=True)
    path.rename(dying)
    shutil.rmtree(dying, ignore_errors=True)


def write_durably(path: Path, text: str | bytes, fence: Fence = NO_FENCE) -> None:
    """Replace a file atomically and durably: a reader sees the old text or the new, and the new is on disk on return.

    Raises OSError, LeaseLostError: then nothing was replaced.
    """
    aside = _aside(path)
    with own_file(aside) as file:
        try:
            fence.check()
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        write_all(file, text.encode() if isinstance(text, str) else text)
        os.fsync(file.fileno())
    aside.replace(path)
    sync_folder(path.parent)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.aside")


def sync_files(folder: Path) -> None:
    """fsync everything below a folder."""
    for path in folder.rglob("*"):
        sync_folder(path)
    sync_folder(folder)


def sync_folder(path: Path) -> None:
    """fsync one folder or one file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _numbered(folder: Path) -> list[Path]:
    """Folders that are named like checkpoints, in the order of their steps."""
    return sorted(_matching(folder), key=lambda path: int(path.name.removeprefix("step_")))


def _matching(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink())
