"""A recording as runs read it: which response answers a prompt, and what the teacher said of it."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import numpy as np

from renio_pipeline.config import ConfigError
from renio_pipeline.recordings.arrays import Arrays
from renio_pipeline.recordings.keys import prompt_key, score_key
from renio_pipeline.recordings.manifest import Manifest, read_manifest
from renio_pipeline.recordings.parts import TABLE, DamagedError, Entry, read_entries
from renio_pipeline.types import Prompt, TopK

OPEN_PARTS = 32  # whose arrays stay mapped


class Recording:
    """Usage: ``Recording.open(folder, key)``; ``find(prompt, seed)``; then ``response(entry)`` and ``signals(entry, …)``."""

    def __init__(self, folder: Path, manifest: Manifest, key: str) -> None:
        """An empty one; see ``open``."""
        self.folder, self.manifest, self._key = folder, manifest, key
        self.by_sample: dict[int, Entry] = {}
        self.by_score: dict[str, Entry] = {}
        self._by_prompt: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        self._tokens: dict[Path, int] = {}  # of each part
        self._arrays = lru_cache(OPEN_PARTS)(self._opened)

    @classmethod
    def open(cls, folder: str | Path, key: str) -> Recording:
        """Read a folder's manifest and tables, and look at the shapes of its arrays.

        Args:
            key: the configuration key or the option that names the folder, for messages.

        Raises:
            ConfigError: it is no recording, or a file of it is damaged; names the file.
        """
        place = Path(folder)
        if not place.is_dir():
            raise ConfigError(f"{key}: there is no folder {str(folder)!r}; give one that renio score wrote")
        found = cls(place, read_manifest(place, key), key)
        try:
            for path in sorted(place.glob(f"part-*{TABLE}")):
                found.add_part(path)
        except DamagedError as error:
            raise ConfigError(
                f"{key}: {error}; delete this part's two files, and run renio score again to replace them"
            ) from None
        return found

    def __len__(self) -> int:
        return len(self.by_sample)

    def add_part(self, path: Path) -> None:
        """Take in one part. Raises DamagedError."""
        entries = read_entries(path)
        self._tokens[path] = sum(entry.tokens for entry in entries)
        self._arrays(path)
        for entry in entries:
            if entry.sample_id in self.by_sample:
                other = self.by_sample[entry.sample_id].part.name
                raise DamagedError(f"{path}: sample {entry.sample_id} is in {other} too")
            if entry.teacher not in self.manifest.teachers:
                raise DamagedError(
                    f"{path}: sample {entry.sample_id} is of teacher {entry.teacher!r}, which the manifest lacks"
                )
            self.by_sample[entry.sample_id] = entry
            self.by_score.setdefault(entry.score_key, entry)
            self._by_prompt[entry.prompt_key, entry.teacher].append(entry)

    def find(self, prompt: Prompt, seed: int, teacher: str = "") -> Entry:
        """The response that a run trains on in the place of one to ``prompt``: of several the one that was written for this
        sample of a run, or else one that the seed and the sample's id choose.

        Args:
            teacher: the name of the teacher whose signals are wanted.

        Raises:
            ConfigError: none answers this prompt; names the row.
        """
        key = prompt_key(prompt)
        same = self.by_sample.get(prompt.sample_id)
        if same is not None and (same.prompt_key, same.teacher) == (key, teacher):
            return same
        if found := self._by_prompt.get((key, teacher)):
            return found[int(np.random.default_rng([seed, prompt.sample_id]).integers(len(found)))]
        raise ConfigError(f"{self._key}: {self.folder} {self._why(prompt, teacher)}")

    def _why(self, prompt: Prompt, teacher: str) -> str:
        if any((entry.row_id, entry.teacher) == (prompt.row.id, teacher) for entry in self.by_sample.values()):
            return (
                f"has a response to row {prompt.row.id!r}, but to another prompt; use the recording's task, prompts, template "
                "and chat template, or record again"
            )
        return (
            f"has no response to row {prompt.row.id!r} (it has {len(self)}, of other rows); record more with renio score, "
            "which tries lost responses again too, or leave that row out of the data"
        )

    def response(self, entry: Entry) -> tuple[np.ndarray, np.ndarray]:
        """[T] int32 token ids and [T] float32 log p_S by the student that wrote them. Raises DamagedError."""
        ids, logprobs = self._arrays(entry.part).response(entry)
        teacher = self.manifest.teachers[entry.teacher]
        if score_key(teacher.identity, entry.prompt_key, ids) != entry.score_key:
            raise DamagedError(
                f"{entry.part}: sample {entry.sample_id} (row {entry.row_id!r}) is not the response that was recorded: its "
                "token ids do not give its score_key"
            )
        return ids, logprobs

    def signals(self, entry: Entry, token_ids: np.ndarray, top_k: int) -> tuple[np.ndarray, TopK | None]:
        """[T] float32 log p_T, and the teacher's ``top_k`` likeliest tokens, if that is not 0. Raises DamagedError."""
        return self._arrays(entry.part).signals(entry, token_ids, top_k)

    def _opened(self, part: Path) -> Arrays:
        m = self.manifest
        return Arrays(part, tokens=self._tokens[part], top_k=m.top_k, vocab_size=m.vocab_size)
