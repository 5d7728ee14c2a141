"""Reflection markers: phrases with which a model doubts and checks itself, counted in its responses."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from renio_pipeline.config import ConfigError

OURS = Path(__file__).parent / "reflection_markers.txt"


class Markers:
    """Counts phrases as whole words, ignoring case. Of phrases that begin at the same position, the longest counts."""

    def __init__(self, phrases: list[str]) -> None:
        self.phrases = phrases
        longest_first = sorted(phrases, key=len, reverse=True)
        self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(_as_written, longest_first))})(?!\w)", re.IGNORECASE)

    @classmethod
    def read(cls, path: str | None) -> Markers:
        """Read a file with one phrase per line; ``#`` begins a comment. ``path`` None: the package's own file.

        Raises:
            ConfigError: the file cannot be read, or has no phrase.
        """
        file = OURS if path is None else Path(path)
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
            raise ConfigError(f"evaluate.markers: {file} {reason}") from None
        phrases = list(dict.fromkeys(filter(None, (_plain(line.partition("#")[0]) for line in lines))))
        if not phrases:
            raise ConfigError(f"evaluate.markers: {file} has no phrase; expected one per line, such as 'let me check'")
        return cls(phrases)

    def count(self, text: str) -> dict[str, int]:
        """How often each phrase occurs in the text; phrases that do not occur are left out."""
        return dict(Counter(_plain(found) for found in self._pattern.findall(text)))


def _plain(text: str) -> str:
    return " ".join(text.replace("’", "'").casefold().split())


def _as_written(phrase: str) -> str:
    return r"\s+".join(re.escape(word).replace("'", "['’]") for word in phrase.split())
