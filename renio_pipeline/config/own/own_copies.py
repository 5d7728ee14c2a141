"""Where users' files are looked for, and the copies that a run keeps of them: ``RUN/own/EPOCH/``.

A run can be read and resumed when the files that its configuration names are gone or changed, from whichever folder: a relative
path is one relative to where the run began. ``EPOCH`` is the restart epoch that began to use a copy; the highest is the newest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from renio_pipeline.config.errors import ConfigError
from renio_pipeline.config.own.own_file import OwnFile
from renio_pipeline.config.own.own_modules import Module

FOLDER = "own"  # in a run's directory
_INDEX = "files.json"  # written last: a folder without it is not complete


class OwnFiles:
    """Reads the files that one configuration names, each once."""

    def __init__(self, runs: Sequence[Path] = (), *, recorded: bool = False) -> None:
        """
        Args:
            runs: directories of runs that may have copies; of the first, those are taken.
            recorded: the copies count, not what the files have become.
        """
        self._runs, self._recorded = tuple(runs), recorded
        self._read: dict[tuple[str, str], OwnFile] = {}
        self._copies: Mapping[str, OwnFile] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OwnFiles)  # where files are looked for is no part of a configuration's values

    __hash__ = None  # type: ignore[assignment]

    def read(self, given: str, key: str) -> OwnFile:
        """The file of ``given``, a ``path.py:Class``: where the run's record says that it is, else relative to the working
        directory, else the run's copy.

        Args:
            key: the configuration key that names it: ``task``, ``weighting.path`` or ``objective.path``.

        Raises:
            ConfigError: no class is named, or there is neither a file nor a copy.
        """
        if (given, key) not in self._read:
            self._read[given, key] = self._found(given, key)
        return self._read[given, key]

    def _found(self, given: str, key: str) -> OwnFile:
        if self._copies is None:
            self._copies = next((found for run in self._runs if (found := copies(run))), {})
        copy = self._copies.get(key)
        if copy is None or f"{copy.path}:{copy.cls}" != given:
            return OwnFile.read(given, key)
        if self._recorded:
            return copy
        if Path(copy.place).is_file():
            return OwnFile.read(given, key, place=Path(copy.place))
        return OwnFile.read(given, key) if Path(copy.path).is_file() else copy


def copies(run: Path) -> dict[str, OwnFile]:
    """The newest copies that a run keeps, by configuration key; {}: it keeps none. Raises ConfigError."""
    newest = max((index.parent for index in (run / FOLDER).glob(f"*/{_INDEX}")), key=lambda folder: folder.name, default=None)
    if newest is None:
        return {}
    try:
        index: dict[str, Any] = json.loads((newest / _INDEX).read_text(encoding="utf-8"))
        return {key: _copy(newest / key, entry) for key, entry in index.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{newest / _INDEX}: the run's copies of own files cannot be read: {error!r}") from None


def keep(run: Path, files: Mapping[str, OwnFile], epoch: int, write: Callable[[Path, bytes], None]) -> None:
    """Copy the files of a restart epoch to its run's directory, unless the newest copies are the same.

    Args:
        write: writes a file; raises where this process may not write.
    """
    if not files or copies(run) == dict(files):
        return
    folder = run / FOLDER / f"{epoch:06d}"
    index: dict[str, Any] = {}
    for key, file in files.items():
        main = Path(file.place).name
        for path, text in [(main, file.source), *((module.path, module.source) for module in file.modules)]:
            (folder / key / path).parent.mkdir(parents=True, exist_ok=True)
            write(folder / key / path, text.encode())
        modules = {module.name: module.path for module in file.modules}
        index[key] = {"path": file.path, "class": file.cls, "place": file.place, "file": main, "modules": modules}
    write(folder / _INDEX, json.dumps(index, indent=1).encode() + b"\n")


def changes(run: Path, files: Mapping[str, OwnFile]) -> Iterator[str]:
    """What a resume says: which files are gone, and which have other code than when the run last started."""
    for key, was in copies(run).items():
        now = files.get(key)
        if now is None:
            continue
        where = f"{key}: {now.path}"
        if not Path(now.place).is_file():
            yield f"{where} is not at {now.place} any more; the run's own copy in {run / FOLDER} is used"
            continue
        before = {was.path: was.source} | {module.path: module.source for module in was.modules}
        after = {now.path: now.source} | {module.path: module.source for module in now.modules}
        changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        if changed:
            yield (
                f"{key}: {', '.join(changed)} changed since the run last started; the steps from here on use the changed code "
                f"({now.place}), and the earlier stays in {run / FOLDER}"
            )


def _copy(folder: Path, entry: Mapping[str, Any]) -> OwnFile:
    def text(path: str) -> str:
        return (folder / path).read_bytes().decode()

    modules = tuple(Module(name, path, text(path)) for name, path in entry["modules"].items())
    return OwnFile(entry["path"], entry["class"], text(entry["file"]), entry["place"], modules)
