"""By what responses are found: prompts, and a teacher's answer to a prompt and a response."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from renio_pipeline.types import Prompt

ENDS = 1 << 16  # bytes of a weight file's beginning and end that enter its model's print
SLICES, SLICE = 64, 1 << 14  # and of slices evenly between them: their number, and the bytes of each


def prompt_key(prompt: Prompt) -> str:
    """Of what student and teacher are asked: a run whose template or task asks otherwise finds nothing."""
    return _digest(_ids(prompt.student_ids), _ids(prompt.teacher_ids))


def score_key(teacher: str, prompt: str, response_ids: np.ndarray) -> str:
    """Of what a teacher says of a response.

    Args:
        teacher: the version of its weights, see ``model_print``.
        prompt: the ``prompt_key``.
        response_ids: [T] int32.
    """
    return _digest(teacher.encode(), prompt.encode(), _ids(response_ids))


def tokenizer_print(tokens: Mapping[int, str], probes: Sequence[Sequence[int]]) -> str:
    """Of a tokenizer: its vocabulary, and how it cuts some texts (``renio_pipeline.models.info.ModelInfo``)."""
    return _digest(json.dumps([sorted(tokens.items()), [list(map(int, ids)) for ids in probes]]).encode())


def model_print(folder: str) -> str | None:
    """The version of a model's weights in a folder: of each weight file its name, size, ends and slices. None: no folder.

    Reading all of them would take minutes, and both ends alone may be what training left as it was: embeddings and norms.
    A change that lies wholly between the slices is not seen.
    """
    files = sorted(path for path in Path(folder).glob("*") if path.suffix in (".safetensors", ".bin"))
    if not files:
        return None
    found: list[bytes] = []
    for path in files:
        size = path.stat().st_size
        with path.open("rb") as file:
            found += [path.name.encode(), str(size).encode(), file.read(ENDS)]
            for place in range(1, SLICES):
                file.seek(size * place // SLICES)
                found.append(file.read(SLICE))
            file.seek(max(0, size - ENDS))
            found.append(file.read(ENDS))
    return _digest(*found)


def _ids(ids: np.ndarray) -> bytes:
    return np.ascontiguousarray(ids, "<i4").tobytes()


def _digest(*parts: Any) -> str:
    """Of the parts with their lengths, so that no two lists of parts have the same text."""
    made = hashlib.sha256()
    for part in parts:
        made.update(len(part).to_bytes(8, "little"))
        made.update(part)
    return made.hexdigest()[:32]
