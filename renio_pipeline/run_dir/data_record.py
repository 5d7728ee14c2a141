"""What a run reads, as its directory remembers it: ``data.json`` for people, and ``data/`` with a fingerprint of each row.

    data.json                     the chat template's clock; for each stretch of the run its files, sizes, rows and hashes
    data/from_000000000000.npz    the rows from sample 0 on, in their order: fingerprints, and how they are drawn

A **stretch** of a run draws from the same rows. There is one, unless the data changed between a run and its resume.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from renio_pipeline.config import ConfigError
from renio_pipeline.config.mixture import parts
from renio_pipeline.config.schema import Data, ProblemSource
from renio_pipeline.run_dir.checkpoint_files import sync_folder, write_durably
from renio_pipeline.run_dir.fence import NO_FENCE, Fence

FILE, FOLDER = "data.json", "data"


class Prints(NamedTuple):
    """Fingerprints of rows, in their order."""

    identities: np.ndarray  # [N] uint64, all different: of the row's id, or where it has none of its own, of its content
    contents: np.ndarray  # [N] uint64: of everything that is read of the row
    prompts: np.ndarray  # [N] uint64: of the token ids that the student and a teacher are shown
    lines: np.ndarray  # [N] int64: where the row is in its file, from 1; 0 where it is in none

    @classmethod
    def none(cls) -> Prints:
        words = np.zeros(0, np.uint64)
        return cls(words, words, words, np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.identities)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where rows came from, and what they were."""

    path: str | None  # as given; None: the task made them
    bytes: int | None = None  # of the file, or of all files of the folder; None: a name on the hub, or no file
    rows: int  # that the run uses
    ids: str  # hexadecimal hash of the rows' identities, in their order
    contents: str
    prompts: str

    @classmethod
    def of(cls, path: str | None, prints: Prints) -> Origin:
        ids, contents, prompts = (hashlib.blake2b(part.tobytes(), digest_size=16).hexdigest() for part in prints[:3])
        return cls(path=path, bytes=_size(path), rows=len(prints), ids=ids, contents=contents, prompts=prompts)


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A part of a run that draws from the same rows, and the order in which it begins to."""

    start: int = 0  # the sample from which it holds
    epoch: int = 0  # the pass over the rows that is under way at ``start``
    first: np.ndarray | None = None  # [U] int64: indices of the rows that are left of that pass; None: all, in its usual order
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))  # identities drawn in that pass before ``start``
    training: Prints = field(default_factory=Prints.none)
    held_out: Prints = field(default_factory=Prints.none)
    asked: int = 0  # held-out rows that were wanted: evaluate.problems
    # Of several sources: a stretch for each, in the order of their names. Its samples and rows are counted for itself, and it
    # has ``epoch``, ``first``, ``seen`` and the fingerprints.
    parts: tuple[Stretch, ...] = ()
    under_way: str = ""  # the source of the slot that was partly drawn at ``start``; empty: none was
    name: str = ""  # of a part: its source
    share: float = 1.0  # of a part: the source's share of the prompts

    @property
    def contents(self) -> np.ndarray:
        """Of the training rows: [N] uint64 fingerprints, through all sources."""
        return np.concatenate([part.training.contents for part in self.parts]) if self.parts else self.training.contents


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceEntry:
    """What ``data.json`` says of one of several sources."""

    name: str
    share: float  # of the prompts
    training: Origin
    held_out: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What ``data.json`` says of a stretch."""

    from_sample: int
    recorded: str  # local time
    training: Origin  # of several sources: all their rows
    held_out: Origin
    sources: list[SourceEntry] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecord:
    """``data.json``."""

    template_clock: str  # the time that the chat template is told, ISO 8601
    stretches: list[Entry]  # in the order of their samples; the first is from sample 0 on

    def at(self, position: int) -> Entry:
        """The stretch that sample ``position`` is in."""
        return [entry for entry in self.stretches if entry.from_sample <= position][-1]


def read_record(run: Path) -> DataRecord | None:
    """The record of a run's directory; None for one of an earlier version. Raises ConfigError."""
    import msgspec

    path = run / FILE
    if not path.exists():
        return None
    try:
        found: DataRecord = msgspec.json.decode(path.read_bytes(), type=DataRecord)
        datetime.fromisoformat(found.template_clock)
        if [entry.from_sample for entry in found.stretches[:1]] != [0]:
            raise ValueError("its first stretch is not from sample 0 on")
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        raise _damaged(path, error) from None
    return found


def read_stretch(run: Path, start: int) -> Stretch:
    """The stretch that holds from sample ``start`` on. Raises ConfigError."""
    path = _file(run, start)
    try:
        with np.load(path, allow_pickle=False) as found:
            if "names" not in found:
                return replace(_part(found, ""), start=start)
            named = enumerate(zip(found["names"], found["shares"], strict=True))
            parts = tuple(replace(_part(found, f"{i}_"), name=str(name), share=float(share)) for i, (name, share) in named)
            return Stretch(start=start, parts=parts, under_way=str(found["under_way"]))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from None


def _part(found: Any, prefix: str) -> Stretch:
    parts = (Prints(*(found[f"{prefix}{part}_{name}"] for name in Prints._fields)) for part in ("train", "held"))
    training, held_out = parts
    return Stretch(
        start=int(found.get(f"{prefix}start", 0)),
        epoch=int(found[f"{prefix}epoch"]),
        first=found.get(f"{prefix}first"),
        seen=found[f"{prefix}seen"],
        training=training,
        held_out=held_out,
        asked=int(found[f"{prefix}asked"]),
    )


def write_stretch(run: Path, data: Data, stretch: Stretch, clock: str, fence: Fence = NO_FENCE) -> None:
    """Record a stretch, in place of those from its start on. Raises OSError, LeaseLostError, ConfigError.

    Args:
        data: where the rows come from.
        clock: the time that the chat template is told.
    """
    import msgspec

    fence.check()
    record = read_record(run)
    path = _file(run, stretch.start)
    path.parent.mkdir(exist_ok=True)
    aside = path.with_name(f".{path.name}")
    with aside.open("wb") as file:
        np.savez_compressed(file, **_arrays(stretch))
    sync_folder(aside)
    aside.replace(path)
    sync_folder(path.parent)
    sections = {part.name: part.section for part in parts(data)}
    entry = Entry(
        from_sample=stretch.start,
        recorded=time.strftime("%Y-%m-%d %H:%M:%S"),
        training=Origin.of(data.path, _all([stretch.training, *(part.training for part in stretch.parts)])),
        held_out=Origin.of(data.held_out_path, _all([stretch.held_out, *(part.held_out for part in stretch.parts)])),
        sources=[_source_entry(part, sections[part.name]) for part in stretch.parts],
    )
    kept = [each for each in (record.stretches if record else ()) if each.from_sample < stretch.start]
    text = msgspec.json.encode(DataRecord(template_clock=clock, stretches=[*kept, entry]))
    write_durably(run / FILE, msgspec.json.format(text, indent=1).decode() + "\n")
    for later in path.parent.glob("from_*.npz"):
        if later.name > path.name:
            later.unlink()


def _source_entry(part: Stretch, section: ProblemSource) -> SourceEntry:
    origins = Origin.of(section.path, part.training), Origin.of(section.held_out_path, part.held_out)
    return SourceEntry(name=part.name, share=part.share, training=origins[0], held_out=origins[1])


def _all(prints: Sequence[Prints]) -> Prints:
    return Prints(*map(np.concatenate, zip(*prints, strict=True)))


def _arrays(stretch: Stretch) -> dict[str, Any]:
    """What ``read_stretch`` makes a stretch of."""
    if not stretch.parts:
        return _own_arrays(stretch)
    found = {
        "names": np.array([part.name for part in stretch.parts]),
        "shares": np.array([part.share for part in stretch.parts], np.float64),
        "under_way": np.array(stretch.under_way),
    }
    for i, part in enumerate(stretch.parts):
        found |= {f"{i}_{key}": value for key, value in _own_arrays(part).items()} | {f"{i}_start": np.int64(part.start)}
    return found


def _own_arrays(stretch: Stretch) -> dict[str, Any]:
    parts = (("train", stretch.training), ("held", stretch.held_out))
    found: dict[str, Any] = {f"{part}_{name}": array for part, prints in parts for name, array in prints._asdict().items()}
    found |= {"epoch": np.int64(stretch.epoch), "asked": np.int64(stretch.asked), "seen": stretch.seen}
    return found if stretch.first is None else found | {"first": stretch.first}


def _file(run: Path, start: int) -> Path:
    return run / FOLDER / f"from_{start:012d}.npz"


def _damaged(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"data.changed: {path}, which says what the run has read, cannot be read: {error}; restore it, or remove {FILE} and "
        f"{FOLDER}/ if the data is certainly what it was"
    )


def _size(path: str | None) -> int | None:
    place = Path(path) if path is not None else None
    if place is None or not place.exists():
        return None
    return sum(file.stat().st_size for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file())
