"""Whether the nodes share a folder with the driver: files written on one side and read on the other."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from actors.doctor.examiner import PATIENCE
from actors.doctor.remote import gather, reason
from renio_pipeline.config import ConfigError
from renio_pipeline.doctor.facts import FolderProbe


def probe(folder: str, examiners: Mapping[str, Any], seconds: float) -> dict[str, FolderProbe]:
    """By node id. Leaves nothing behind.

    Raises:
        ConfigError: the driver itself cannot write into ``folder``.
    """
    text = secrets.token_hex(8)
    with _made(Path(folder)) as place:
        (place / "driver").write_text(text, encoding="utf-8")
        asked = {id: each.probe_folder.remote(str(place), id, text) for id, each in examiners.items()}
        answers = gather(asked, seconds + PATIENCE)
        return {id: _judged(place / id, answer, text) for id, answer in answers.items()}


@contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """A new folder inside ``folder``, which is made for it if need be; all that was made is removed afterwards."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    place = folder / f".doctor-{secrets.token_hex(4)}"
    try:
        place.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"run_dir: the driver cannot write into {folder}: {error.strerror}; choose another folder") from None
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        for each in new:
            with suppress(OSError):  # somebody has put something there by now
                each.rmdir()


def _judged(file: Path, answer: Any, text: str) -> FolderProbe:
    if isinstance(answer, Exception):
        return FolderProbe(seen=False, answered=False, error=reason(answer))
    if not answer["answered"]:
        return FolderProbe(**answer)
    deadline = time.monotonic() + PATIENCE
    while not (file.is_file() and file.read_text(encoding="utf-8") == text):
        if time.monotonic() > deadline:
            return FolderProbe(seen=True, answered=False)
        time.sleep(0.2)
    return FolderProbe(seen=True, answered=True)
