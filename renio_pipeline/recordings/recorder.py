"""Add to a recording: exactly once, also where an earlier ``renio score`` was killed at any moment."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from renio_pipeline.config import ConfigError
from renio_pipeline.recordings.keys import prompt_key
from renio_pipeline.recordings.manifest import FILE, Manifest, read_manifest
from renio_pipeline.recordings.parts import ARRAYS, TABLE, Entry, Scored, unlearnable, write_part
from renio_pipeline.recordings.recording import Recording
from renio_pipeline.run_dir.checkpoint_files import write_durably
from renio_pipeline.types import Prompt, TopK

LOCK = ".lock"


class Recorder:
    """Usage: ``with recorder(folder, manifest) as to: to.missing(prompts); to.add(scored)``."""

    def __init__(self, recording: Recording, reused: Sequence[Recording] = ()) -> None:
        """``reused``: other recordings of the same teachers, whose signals count as this one's."""
        self.recording, self._reused = recording, reused
        numbers = [int(path.stem.removeprefix("part-")) for path in _tables(recording.folder)]
        self._next = 1 + max(numbers, default=0)

    def missing(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts whose samples are not recorded yet.

        Raises:
            ConfigError: a sample is there as another row, of another teacher, or with another prompt.
        """
        found: list[Prompt] = []
        for prompt in prompts:
            entry = self.recording.by_sample.get(prompt.sample_id)
            if entry is None:
                found.append(prompt)
            elif why := self._unlike(entry, prompt):
                raise ConfigError(
                    f"--out: {self.recording.folder} has sample {prompt.sample_id} as row {entry.row_id!r}, {why}; give "
                    "another folder, or the same data, task and prompts"
                )
        return found

    def _unlike(self, entry: Entry, prompt: Prompt) -> str | None:
        """What another sample there is in the place of ``prompt``'s; None: it is the same one."""
        teacher = "" if "" in self.recording.manifest.teachers else prompt.row.teacher or ""
        if entry.row_id != prompt.row.id:
            return f"and now it is row {prompt.row.id!r}"
        if entry.teacher != teacher:
            return f"scored by teacher {entry.teacher!r}, and now it is for teacher {teacher!r}"
        return "which was asked with another prompt" if entry.prompt_key != prompt_key(prompt) else None

    def known(self, score_key: str, scored: Scored) -> Scored | None:
        """``scored``, a response without signals, with those that were recorded before; None if there are none."""
        top_k = self.recording.manifest.top_k
        for each in (self.recording, *self._reused):
            if (entry := each.by_score.get(score_key)) is not None:
                logprobs, table = each.signals(entry, scored.token_ids, top_k)
                return with_signals(scored, logprobs, table)
        return None

    def add(self, responses: Sequence[Scored]) -> None:
        """Write a part; when this returns it is on disk, whole.

        Raises:
            ValueError: what should be a log-probability is none, which no run could learn from; names the sample. Nothing was
                written.
        """
        if not responses:
            return
        for each in responses:
            if (why := unlearnable(each)) is not None:
                raise ValueError(f"sample {each.sample_id} (row {each.row_id!r}): {why}")
        path = self.recording.folder / f"part-{self._next:06d}{TABLE}"
        write_part(path, responses)
        self._next += 1
        self.recording.add_part(path)


def with_signals(scored: Scored, logprobs: np.ndarray, table: TopK | None) -> Scored:
    """A response with what a teacher said of it."""
    return replace(scored, teacher_logprobs=logprobs, top_k=table)


@contextmanager
def recorder(folder: Path, manifest: Manifest, reuse: Sequence[Path] = ()) -> Iterator[Recorder]:
    """Begin a recording, or go on with one that has the same manifest, as its only writer.

    Args:
        reuse: folders of other recordings whose signals are not asked for again.

    Raises:
        ConfigError: another process writes there, the folder is another's, or a key of the manifests differs.
    """
    others = [_reusable(path, manifest) for path in reuse]
    _begin(folder, manifest)
    with _only_writer(folder):
        found = Recording.open(folder, "--out")
        _check_same(folder, found.manifest, manifest)
        for path in folder.glob(f"part-*{ARRAYS}"):
            if not path.with_suffix(TABLE).exists():  # its writer was killed before the part was there
                path.unlink()
        yield Recorder(found, others)


def check_folder(folder: Path) -> None:
    """Raises ConfigError for what is neither new nor a recording. Writes nothing."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out: {folder} is no folder; give one that is new, or a recording to go on with")
    if folder.is_dir() and not (folder / FILE).exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise ConfigError(f"--out: {folder} is not empty and no recording; give a new folder, or a recording to go on with")


def clock_of(folder: Path, reuse: Sequence[Path] = ()) -> str | None:
    """The time that the chat template is told, so that a recording goes on, or reuses others, on every later day; None: now.

    Raises:
        ConfigError: a manifest cannot be read.
    """
    found = [read_manifest(folder, "--out")] if (folder / FILE).exists() else [read_manifest(each, "--reuse") for each in reuse]
    return next((each.clock for each in found if each.clock), None)


def _begin(folder: Path, manifest: Manifest) -> None:
    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out: {folder} cannot be made: {error.strerror}") from None
    with _only_writer(folder):
        if not (folder / FILE).exists():
            write_durably(folder / FILE, manifest.text())


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise ConfigError(f"--out: {folder / LOCK} cannot be written: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"--out: another renio score writes to {folder}; wait until it has ended") from None
        yield
    finally:
        os.close(handle)


def _check_same(folder: Path, found: Manifest, manifest: Manifest) -> None:
    for key, there, here in found.differences(manifest):
        raise ConfigError(
            f"--out: {folder} was recorded with another {key} ({FILE} has {_short(there)}, this configuration gives "
            f"{_short(here)}); give another folder, or the configuration that it was begun with"
        )


def _reusable(path: Path, manifest: Manifest) -> Recording:
    found = Recording.open(path, "--reuse")
    for key in ("tokenizer", "vocab_size", "temperature"):
        if (there := getattr(found.manifest, key)) != (here := getattr(manifest, key)):
            raise ConfigError(f"--reuse: {path} has another {key} ({_short(there)}, not {_short(here)}); leave it out")
    if found.manifest.top_k < manifest.top_k:
        raise ConfigError(
            f"--reuse: {path} has the {found.manifest.top_k} likeliest tokens, not {manifest.top_k}; leave it out"
        )
    return found


def _tables(folder: Path) -> list[Path]:
    return [path for path in folder.glob(f"part-*{TABLE}") if path.stem.removeprefix("part-").isdecimal()]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
