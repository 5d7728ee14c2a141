"""``manifest.json``: what a recording was made with, and what a run that trains from it must have in common with it."""

from __future__ import annotations

import json
import stat
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from renio_pipeline.config import ConfigError

FILE = "manifest.json"
FORMAT = 1
MOST_BYTES = 1 << 20
UNLIKE = ("versions", "clock")  # may differ: the first is for people, and a prompt's own key has what the clock decides
Kind = Literal["sampled", "top_k"]


@dataclass(frozen=True, kw_only=True)
class RecordedTeacher:
    """A teacher whose signals are in a recording."""

    model: str
    version: str  # of its weights, see ``keys.model_print``; of a model that is no folder here, its name
    adapter: str | None = None
    adapter_version: str | None = None
    dtype: str = "float32"
    engine: dict[str, Any] = field(default_factory=dict)  # options of its own, such as a quantisation
    end_tokens: dict[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """What makes its signals its own, for ``keys.score_key``."""
        own = json.dumps([self.engine, self.end_tokens], sort_keys=True) if self.engine or self.end_tokens else ""
        return f"{self.version} {self.adapter_version or self.adapter or ''} {self.dtype}{own}"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    student: str  # the model that wrote the responses
    student_version: str
    teachers: dict[str, RecordedTeacher]  # by the name that rows are routed by; a single one's is empty
    tokenizer: str  # see ``keys.tokenizer_print``
    vocab_size: int  # V, the entries that probabilities are normalised over
    temperature: float  # τ
    kind: Kind
    top_k: int = 0
    max_response_tokens: int
    seed: int
    sampling: dict[str, Any]
    clock: str = ""  # the time that the chat template was told, ISO 8601; empty: not known
    format: int = FORMAT
    versions: dict[str, str] = field(default_factory=dict)  # of the packages, for people

    def text(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    def differences(self, other: Manifest) -> list[tuple[str, Any, Any]]:
        """(key, its value here, its value there) of all that decides what is recorded."""
        mine, theirs = asdict(self), asdict(other)
        return [(key, mine[key], theirs[key]) for key in mine if key not in UNLIKE and mine[key] != theirs[key]]


def read_manifest(folder: Path, key: str) -> Manifest:
    """A recording's manifest.

    Args:
        key: the configuration key or the option that names the folder, for messages.

    Raises:
        ConfigError: there is none, or it is none that this version can read.
    """
    path = folder / FILE
    try:
        regular(path)
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"has more than {MOST_BYTES} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("is no JSON object")
        if values.get("format") != FORMAT:
            raise ValueError(f"has format {values.get('format')!r}, and this version reads {FORMAT}")
        teachers = {str(name): RecordedTeacher(**own) for name, own in values.pop("teachers").items()}
        return _checked(Manifest(teachers=teachers, **values))
    except FileNotFoundError:
        raise ConfigError(
            f"{key}: {folder} has no {FILE}, so it is no recording; give a folder that renio score wrote"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{key}: {path} cannot be read as a recording's manifest: {error}; record it again") from None


def _checked(found: Manifest) -> Manifest:
    numbers: dict[str, tuple[Any, Any, float]] = {
        "vocab_size": (found.vocab_size, int, 2), "temperature": (found.temperature, (int, float), 1e-9),
        "top_k": (found.top_k, int, 0), "max_response_tokens": (found.max_response_tokens, int, 1),
    }  # fmt: skip
    for name, (value, kind, least) in numbers.items():
        if isinstance(value, bool) or not isinstance(value, kind) or not least <= value < 2**40:
            raise ValueError(f"{name} is {value!r}, expected a number from {least:g} on")
    if found.kind not in ("sampled", "top_k") or (found.kind == "top_k") != (found.top_k > 0):
        raise ValueError(f"kind {found.kind!r} does not go with top_k {found.top_k}")
    if not isinstance(found.clock, str):
        raise ValueError(f"clock is {found.clock!r}, expected a time as text")
    if found.clock:
        datetime.fromisoformat(found.clock)
    if not found.teachers or not all(isinstance(each.version, str) for each in found.teachers.values()):
        raise ValueError("teachers names none with its version")
    return found


def regular(path: Path) -> None:
    """Raises ValueError unless a path is a file itself: a link may lead anywhere, and a device has no end."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(f"{path.name} is no regular file")
